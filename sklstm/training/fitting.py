"""One fit: the verbs from texts to a TextModel, in the order in which they are called."""

import numpy as np
from torch import nn

from sklstm.kernels.surroundings import own_surroundings
from sklstm.model.blending import Blend, blend_by_validation
from sklstm.model.text_model import TextModel
from sklstm.model.validation import Validation
from sklstm.network.precision import check_precision, resolve_device
from sklstm.network.text_network import LSTMTextNetwork
from sklstm.ngrams.member import FittedMembers, choose_members, fit_members
from sklstm.tasks.protocol import Task
from sklstm.text.batching import TrainingBatches
from sklstm.text.examples import Examples
from sklstm.text.splitting import split_rows
from sklstm.training.callbacks import build_callbacks
from sklstm.training.interruption import report_interruption
from sklstm.training.loop import build_net, read_moments, train
from sklstm.training.reporting import Report
from sklstm.training.schedule import TimeLimit, count_epochs
from sklstm.training.settings import TrainingSettings
from sklstm.training.start import Fresh
from sklstm.training.trained import Trained


class Fitting:
    """The state of one running fit. It owns no formula: each verb is a call of what does.

    As a context manager it resets what the process has set in torch, and reports an interruption by
    Ctrl-C once the model is stored.

    Parameters
    ----------
    estimator : TextEstimator
        Whose parameters hold.
    start : Fresh, Pretrained or Resumed
        Where the fit starts.
    task : Task or None
        What y is; None of a language model.
    settings : TrainingSettings or None
        How to train; None is as the estimator's parameters say.
    """

    def __init__(self, estimator, start: Fresh, task: Task | None = None, settings=None):
        self.estimator, self.start, self.task = estimator, start, task
        self.settings = settings or TrainingSettings.of(estimator)
        self.device = resolve_device(estimator.device)
        check_precision(estimator.precision, self.device)
        self.n_stages = start.count_stages() if self.settings.gradual_unfreezing else 1
        self.rng, self.generator = start.generators()
        self.report, self.moments, self.interrupted = Report(self.settings.verbose), {}, False
        self.surroundings = own_surroundings()

    def __enter__(self):
        self.surroundings.__enter__()
        return self

    def __exit__(self, kind, error, traceback):
        self.surroundings.__exit__(kind, error, traceback)
        if kind is None and self.interrupted:
            report_interruption(self.estimator.model_)

    def split_rows(self, texts: list[str], strata=None) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the rows to train on, and those held out, or None."""
        fraction = self.settings.validation_fraction
        return split_rows(texts, strata, fraction=fraction, rng=self.rng)

    def split(
        self, everything: Examples, held_out: Examples | None = None
    ) -> tuple[Examples, Examples, Examples | None]:
        """Return all examples, those to train on, and those held out, or None."""
        if held_out is not None or not self.settings.early_stopping:
            return everything, everything, held_out
        strata = self.task.strata(everything.targets, self.settings.validation_fraction)
        rows, others = self.split_rows(everything.texts, strata)
        if others is None:
            self.report.nothing_held_out(len(everything.texts), self.estimator.scoring)
            return everything, everything, None
        return everything, everything.take(rows), everything.take(others)

    def vectorize(self, train: Examples):
        """Return the vectorizer, and the batches to train on; the weights get a mean of 1."""
        vectorizer, ids = self.start.vectorize(train.texts)
        batches = TrainingBatches(
            ids,
            train.targets,
            train.weights / train.weights.mean(),
            batch_size=self.settings.batch_size,
            rng=self.rng,
        )
        return vectorizer, batches

    def validate_by(self, held_out: Examples | None, vectorizer) -> Validation | None:
        """Return what evaluates the network after each epoch, or None without held-out texts."""
        if held_out is None:
            return None
        parts = {"task": self.task, "scoring": self.estimator.scoring}
        return Validation(held_out, self.start.encode(held_out.texts, vectorizer), **parts)

    def fit_members(self, everything, train: Examples, validation, vectorizer, early=None):
        """Return the fitted ensemble members and their outputs for the validation texts.

        They are fitted before the network is trained, so that their errors come early.
        """
        calibrate = self.estimator.calibrate
        held_out = validation.examples if validation and calibrate else None
        unfitted = choose_members(self.estimator.blend, vectorizer, self.task)
        told = {"tell": self.report.member, "compares": calibrate, "early": early or {}}
        return fit_members(unfitted, everything, train, held_out, self.task, **told)

    def build_network(self, vectorizer) -> LSTMTextNetwork:
        """Return the network to train, with the weights of the start."""
        settings = self.start.network_settings()
        network = LSTMTextNetwork(
            settings,
            n_ids=len(vectorizer.tokens_),
            n_outputs=self.task.n_outputs,
            generator=self.generator,
        )
        self.start.load_into(network)
        return network

    def count_epochs(self, batches) -> int:
        """Return the most epochs that there will be."""
        return count_epochs(self.settings, n_batches=len(batches), n_stages=self.n_stages)

    def train(self, network: nn.Module, step, batches, validation=None, last=()) -> Trained:
        """Train the network in place; return what the training leaves apart from its weights."""
        settings, n_epochs = self.settings, self.count_epochs(batches)
        counts = {"n_batches": len(batches), "n_stages": self.n_stages, "n_epochs": n_epochs}
        limit = TimeLimit(settings.max_minutes)
        told = {"limit": limit, "validation": validation, "last": last}
        net = build_net(
            network,
            step,
            settings,
            device=self.device,
            callbacks=build_callbacks(settings, **told, **counts),
            history=self.start.history if settings.continues else [],
            moments=self.start.moments,
            limit=limit,
        )
        self.report.begin(len(batches), n_epochs, validation, settings.max_minutes)
        trained = train(net, batches, n_epochs=n_epochs)
        self.report.end(trained, n_epochs, validation, keeps_best=settings.keeps_best)
        self.moments = read_moments(net) if settings.continues else {}
        self.interrupted = trained.interrupted
        return trained

    def find_blend(self, network: LSTMTextNetwork, members: FittedMembers, validation) -> Blend:
        """Return the best blend of the network with the members, by the validation texts."""
        held_out = validation if self.estimator.calibrate else None
        return blend_by_validation(self.task, network, members, held_out)

    def blend(self, network: LSTMTextNetwork, members: FittedMembers, validation) -> Blend:
        """Return the same once the network is trained, and show it."""
        try:
            blend = self.find_blend(network, members, validation)
        except KeyboardInterrupt:
            self.interrupted = True
            return self.find_blend(network, members, None)
        self.report.blend(blend)
        return blend

    def model(self, vectorizer, network: nn.Module, trained: Trained, **parts) -> TextModel:
        """Return all that was learnt."""
        return TextModel(
            vectorizer=vectorizer,
            network=network,
            task=self.task,
            history=trained.history,
            callbacks=trained.callbacks,
            moments=self.moments,
            rng=self.rng,
            given=self.start.given,
            coverage=self.start.coverage,
            **parts,
        )
