"""Shape annotations that cost nothing at run time.

`Float[Tensor, "batch rays 3"]` documents a shape in the signature. Under the tests jaxtyping and
beartype check it on every call; where jaxtyping is not installed the annotation is just `Tensor`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, UInt8
else:
    try:
        from jaxtyping import Bool, Float, Int, UInt8
    except ModuleNotFoundError:  # jaxtyping is a test dependency

        class _Unchecked:
            def __class_getitem__(cls, item):
                return item[0]

        Bool = Float = Int = UInt8 = _Unchecked

__all__ = ["Bool", "Float", "Int", "UInt8"]
