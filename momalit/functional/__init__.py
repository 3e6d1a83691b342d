"""Pure functions of tensors: the equations, each where it can be checked by hand."""
