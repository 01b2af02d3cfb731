"""The probe in other people's loops: one module a library, imported when it is called."""
