"""Networks that only look: no parameters to train, no statistics to move."""

from typing import TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def freeze(module: Module, *, persistent: bool) -> Module:
    """Make every parameter a buffer, in place: no optimiser, no requires_grad_ will find it.

    If not `persistent`, state dicts leave out all that the module holds.
    """
    for child in module.modules():
        for name, parameter in list(child._parameters.items()):
            if parameter is not None:
                del child._parameters[name]
                child.register_buffer(name, parameter.detach())
        if not persistent:
            child._non_persistent_buffers_set.update(child._buffers)
    return module.eval()
