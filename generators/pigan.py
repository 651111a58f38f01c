"""pi-GAN (Chan et al. 2021): a mapping network that styles a FiLM-SIREN radiance field."""

from torch import Tensor, nn

from generators.base import GENERATORS, RadianceGenerator
from ops.shapes import Float
from rendering.cameras import Cameras
from siren.fields import FIELDS, SirenField
from siren.mapping import MappingNetwork
from siren.native import compiled


@GENERATORS.register("PiGAN", "ImplicitGenerator3d")
class PiGAN(RadianceGenerator):
    """Mapping network plus SIREN field; w is raw frequencies, then phase shifts."""

    def __init__(
        self,
        *,
        latent_dim: int = 256,  # numbers in z
        model: str = "SpatialSiren",  # the field, by its name in siren.fields.FIELDS
        hidden_dim: int | None = None,  # width of the field; None: the field's own
        num_layers: int = 8,  # FiLM layers before the density head
        box_side: float | None = None,  # cube that is mapped to [-1, 1]; None: the field's; 0: none
        view_direction: bool = True,  # whether colours depend on where they are seen from
        density_gain: float = 1.0,  # scale of the density head
        bound_radius: float = 0.0,  # beyond it nothing is; 0: unbounded. For scenes on white
        mapping_dim: int = 256,  # width of the mapping network
        grid_size: int | None = None,  # voxels per side of an embedding grid; None: the field's
    ) -> None:
        siren = FIELDS[model](
            hidden_dim=hidden_dim,
            num_layers=num_layers,
            box_side=box_side,
            view_direction=view_direction,
            density_gain=density_gain,
            bound_radius=bound_radius,
            grid_size=grid_size,
        )
        super().__init__(latent_dim=latent_dim, w_shape=(siren.style_dim,))
        self.siren = siren
        self.mapping_network = MappingNetwork(latent_dim, mapping_dim, siren.style_dim)

    def style(
        self,
        z: Float[Tensor, "batch latent"],
        label: Tensor | None = None,
        cameras: Cameras | None = None,
    ) -> Float[Tensor, "batch styles"]:
        """Raw frequencies and phase shifts; pi-GAN knows neither labels nor cameras here."""
        if label is not None:
            raise ValueError("pi-GAN has no class labels")
        return self.mapping_network(z)

    def field(self, w: Float[Tensor, "batch styles"]) -> SirenField:
        """The scenes of styles, with FiLM folded into the weights."""
        return self.siren.bind(w)

    def allow_second_derivatives(self) -> None:
        """Evaluate the field without its CPU blocks."""
        self.siren.blocked = False

    def compile_field(self) -> None:
        """Evaluate the field's CPU blocks in compiled layers."""
        if self.w_avg.device.type != "cpu":
            raise ValueError("--compile is for the CPU: a GPU's field has no use for it")
        compiled()
        self.siren.compiled = True

    def mapping_parameters(self) -> list[nn.Parameter]:
        """The mapping network's parameters."""
        return list(self.mapping_network.parameters())
