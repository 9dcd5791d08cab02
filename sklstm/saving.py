"""``load``: whatever a file of ``save`` holds, as the estimator that it was."""

from sklstm.classifier import LSTMTextClassifier
from sklstm.language_model import LSTMLanguageModel
from sklstm.regressor import LSTMTextRegressor
from sklstm.text_estimator import load_estimator

ESTIMATORS = {
    kind.__name__: kind for kind in (LSTMTextClassifier, LSTMTextRegressor, LSTMLanguageModel)
}


def load(path, *, trust_pattern=False):
    """Return the fitted estimator that ``save`` has written into a file.

    The weights are on the CPU. No code from the file is run.

    Parameters
    ----------
    path : str or path-like
        The file.
    trust_pattern : bool, default=False
        Whether to accept a vectorizer with a ``token_pattern`` of its own. A regular expression can
        be made to take for ever on some texts: set it for files whose source you trust.

    Returns
    -------
    estimator : LSTMTextClassifier, LSTMTextRegressor or LSTMLanguageModel

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, of another program or of a later version.

    Examples
    --------
    >>> import tempfile
    >>> import sklstm
    >>> texts = ["good film", "so good", "not bad", "bad film", "so bad", "not good"] * 5
    >>> labels = ["pos", "pos", "pos", "neg", "neg", "neg"] * 5
    >>> clf = sklstm.LSTMTextClassifier(max_epochs=5, random_state=0).fit(texts, labels)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     clf.save(f"{folder}/films.safetensors")
    ...     loaded = sklstm.load(f"{folder}/films.safetensors")
    >>> bool((loaded.predict_proba(texts) == clf.predict_proba(texts)).all())
    True
    """
    return load_estimator(path, ESTIMATORS, trust_pattern=trust_pattern)
