"""The strategy."""

from dinomx_core.training.backbone import Backbone
from dinomx_core.training.contracts import Strategy
from dinomx_my_name import plugin


class MyNameStrategy(Strategy):
    """What requires no gradient once the backbone is adapted never trains; student and teacher have it in common."""

    def __init__(self, options: "plugin.MyName"):
        self.ends = tuple(options.ends)

    def adapt(self, backbone: Backbone) -> None:
        """Freeze all but the parameters of those names."""
        for name, parameter in backbone.named_parameters():
            if not name.endswith(self.ends):
                parameter.requires_grad_(False)
