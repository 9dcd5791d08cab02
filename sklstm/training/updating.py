"""The blend in ``partial_fit``: its weights and its n-grams follow the new texts."""

from dataclasses import replace

from sklstm.composition import NGRAMS
from sklstm.model.blending import Blend, expect_weights, update_weights
from sklstm.model.prediction import compute_outputs
from sklstm.ngrams.member import ask_member
from sklstm.ngrams.updating import Precisions, begin_member, can_be_updated, update_member
from sklstm.tasks.protocol import Task
from sklstm.text.batching import RaggedIds
from sklstm.text.examples import Examples


def update_blend(
    estimator,
    start,  # what the call resumes from
    train: Examples,
    ids: RaggedIds,  # of the same texts
    task: Task,
    vectorizer,
) -> tuple[Blend, Precisions]:
    """Return the blend whose n-grams have learnt the texts too, and the precisions of these.

    The earlier network and n-grams, which have not seen the texts, say how good each of them is. A
    blend that holds no n-grams stays as it is.
    """
    blend = start.blend
    if estimator.blend is None:
        return blend, start.precisions
    if start.model is None:
        member, precisions = begin_member(train, task, vectorizer)
        members = ((NGRAMS, member),)
        return Blend(1.0, expect_weights(members), members), precisions
    blend = replace(blend, report=())  # it is about the models of the earlier call
    if len(blend.members) != 1 or not can_be_updated(blend.member, task):
        return blend, start.precisions
    if estimator.calibrate:
        outputs = compute_outputs(start.model.network, ids)
        of_member = ask_member(blend.member, train.texts, task)
        found = update_weights(blend, task, outputs, of_member, train.targets, train.weights)
        blend = replace(blend, weights=found)
    member, precisions = update_member(blend.member, start.precisions, train, task)
    return replace(blend, members=((NGRAMS, member),)), precisions
