"""The loss."""

from torch import Tensor
from torch.nn import functional as F

from dinomx_core.training.contracts import Loss, LossContext, LossResult, Outputs, Scheduled
from dinomx_core.training.flow import Views, at_least_float32
from dinomx_my_name import plugin

EPS = 1e-4  # keeps the gradient of the square root finite where all features are the same


class MyNameLoss(Loss):
    """max(0, margin - standard deviation over a crop's images), its mean over features and crops."""

    def __init__(self, options: "plugin.MyName", context: LossContext):
        super().__init__()
        self.margin = options.margin
        (self.request,) = plugin.my_name_requests(options)

    def forward(self, outputs: Outputs, views: Views, values: Scheduled) -> LossResult:
        """Class tokens (V, B, D) -> scalar."""
        tokens: Tensor = at_least_float32(outputs[self.request])
        spread = (tokens.var(1, correction=0) + EPS).sqrt()
        return LossResult(F.relu(self.margin - spread).mean(), {"spread": spread.detach().mean()})
