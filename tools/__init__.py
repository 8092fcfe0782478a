"""What is made from the template's code."""
