"""Pure functions of tensors: the equations of the methods, which the tests check by hand."""
