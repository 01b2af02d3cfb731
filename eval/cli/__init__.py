"""What is typed and what is printed: parser, inputs, one module of handlers a family."""
