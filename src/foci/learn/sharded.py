"""An arm whose model is shared out among processes while it trains (`train.fsdp`), and whole before and after."""

from foci.attention.watching import check_watched
from foci.focus import GuidesHeads, Plan
from foci.learn.arguments import learner
from foci.learn.baseline import Start, load
from foci.models import LanguageModel, sharding
from foci.system import processes


def shared_out(model: LanguageModel, plan: Plan) -> str:
    """Shards the model over the processes, in place; returns in a sentence what each of them holds."""
    count = processes.size()
    if count == 1:
        return "train.fsdp has no effect: there is one process, and it holds the whole model; torchrun starts several"
    if plan.of(GuidesHeads):
        check_watched(model)  # by passes of its own, once; the first process has asked already
    sharding.shard(model)
    return f"each of {count} processes holds a part of weights, gradients and optimizer state (FSDP2)"


def whole_again(model: LanguageModel, start: Start, plan: Plan) -> LanguageModel:
    """Returns the trained model as one process would have it, in the first process; the others keep their parts.

    It is loaded anew and given the weights that trained. Every process must call it.
    """
    if not sharding.is_sharded(model):
        return model
    state = sharding.whole_state(model, keep=processes.is_first())
    if not processes.is_first():
        return model
    found = learner(start.run, load(start).model, plan)
    missing, foreign = found.load_state_dict(state, strict=False)
    lost = {name for name, p in found.named_parameters() if p.requires_grad}.intersection(missing)
    assert not foreign, foreign
    assert not lost, lost
    return found.eval()
