"""A checkpoint's folder -> its card and its Hub repository."""
