"""Parameters that student and teacher have in common: they are the student's parts, and whole while a block of either runs."""

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from dinomx_core.training.backbone import Backbone


@dataclass
class Loan:
    """A unit of the borrower, the lender's unit of the same place, and the parameters that it takes from there: (module of the borrower,
    module of the lender, name)."""

    borrower: nn.Module
    lender: nn.Module
    parameters: list[tuple[nn.Module, nn.Module, str]] = field(default_factory=list)


def borrow(lender: Backbone, borrower: Backbone) -> list[Loan]:
    """Take the common parameters out of the borrower, and note where they were."""
    units = [*zip(borrower.blocks, lender.blocks), (borrower, lender)]
    loans, seen = [], set[nn.Module]()
    for ours, theirs in units:
        loan = Loan(ours, theirs)
        others = dict(theirs.named_modules())
        for name, module in ours.named_modules():
            if module in seen:
                continue
            seen.add(module)
            for leaf, parameter in list(module.named_parameters(recurse=False)):
                if name in others and others[name]._parameters.get(leaf) is parameter:
                    loan.parameters.append((module, others[name], leaf))
        if loan.parameters:
            loans.append(loan)
    for loan in loans:
        for module, _, leaf in loan.parameters:
            module._parameters[leaf] = None
    return loans


def lend(loan: Loan) -> None:
    """Let the borrower's unit have the lender's whole parameters while it runs."""

    def take() -> None:
        for ours, theirs, leaf in loan.parameters:
            ours._parameters[leaf] = theirs._parameters[leaf]

    def before(module: nn.Module, *_: Any) -> None:
        loan.lender.unshard()
        take()

    def after(module: nn.Module, *_: Any) -> None:
        loan.lender.reshard()
        take()

    loan.borrower.register_forward_pre_hook(before, prepend=True)
    loan.borrower.register_forward_hook(after, always_call=True)
    take()
