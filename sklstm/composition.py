"""The parameter ``blend``: one ensemble member or several, whose names are parameters too."""

from sklstm.checks import shorten

#: What ``blend`` may be instead of an estimator.
NGRAMS = "ngrams"
#: What a member of a list may be instead of an estimator: it is left out.
DROPPED = "drop"


def list_members(blend) -> list[tuple[str, object]]:
    """Return the names and members of a checked ``blend``, those left out among them."""
    if blend is None:
        return []
    if isinstance(blend, list | tuple):
        return [(entry, entry) if isinstance(entry, str) else tuple(entry) for entry in blend]
    return [(blend, blend)] if isinstance(blend, str) else [(type(blend).__name__, blend)]


def check_members(blend, method: str, taken) -> None:
    """Raise an error unless a list of members is one; other values are checked elsewhere.

    Parameters
    ----------
    blend : list or any
        The parameter.
    method : str
        By which a member predicts.
    taken : iterable of str
        Names that a member cannot have: those of the estimator's parameters and of its report.

    Raises
    ------
    TypeError
        If an entry is neither 'ngrams' nor a pair of a name and an estimator.
    ValueError
        If there is no entry, a name occurs twice or cannot be one, or an estimator cannot predict.
    """
    if not isinstance(blend, list | tuple):
        return
    if len(blend) == 0:
        raise ValueError("blend must have a member in its list; got none. Give blend=None instead.")
    for entry in blend:
        if not (_is_pair(entry) or (isinstance(entry, str) and entry == NGRAMS)):
            raise TypeError(
                "blend must be a list of 'ngrams' and pairs (name, estimator); got the entry "
                f"{shorten(entry)}."
            )
    names = [name for name, _ in list_members(blend)]
    for name, member in list_members(blend):
        _check_name(name, names, taken)
        _check_member(name, member, method)


def _check_name(name, names, taken):
    wrong = None
    if names.count(name) > 1:
        wrong = "that two of them have"
    elif "__" in name or not name:
        wrong = "with two underscores" if name else "without a letter"
    elif name in taken:
        wrong = "that this estimator uses itself"
    if wrong is not None:
        raise ValueError(
            f"blend must give each member a name of its own; got {name!r}, a name {wrong}. Take "
            "another one."
        )


def _check_member(name, member, method):
    if isinstance(member, str):
        if member not in (NGRAMS, DROPPED):
            raise ValueError(
                f"blend must hold 'ngrams', 'drop' or estimators; got {member!r} as {name!r}."
            )
        return
    if isinstance(member, type):
        raise ValueError(
            f"blend must hold estimators; got the class {member.__name__} as {name!r}. Make one: "
            f"{member.__name__}()."
        )
    missing = [needed for needed in ("fit", method) if not hasattr(member, needed)]
    if missing:
        remedy = ""
        if method == "predict_proba":
            remedy = " Wrap a classifier without probabilities in CalibratedClassifierCV."
        raise ValueError(
            f"blend must hold estimators of raw texts with fit and {method}; got "
            f"{type(member).__name__} as {name!r}, which has no {missing[0]}.{remedy}"
        )


def _is_pair(entry) -> bool:
    is_pair = isinstance(entry, list | tuple) and len(entry) == 2
    return is_pair and isinstance(entry[0], str)


class NamedMembers:
    """A base class of estimators whose parameter ``blend`` may be a list of named members.

    As in scikit-learn's VotingClassifier, ``name`` and ``name__parameter`` can then be set and
    searched.
    """

    def get_params(self, deep=True):
        """Return the parameters; with a list as ``blend``, those of its members too.

        Parameters
        ----------
        deep : bool, default=True
            Whether to return the parameters of estimators among the parameters.

        Returns
        -------
        params : dict
            Names and values.
        """
        params = super().get_params(deep=deep)
        for name, member in _pairs(self.blend) if deep else ():
            params[name] = member
            if hasattr(member, "get_params") and not isinstance(member, type):
                nested = member.get_params(deep=True).items()
                params.update((f"{name}__{key}", value) for key, value in nested)
        return params

    def set_params(self, **params):
        """Set parameters, also those of the vectorizer and of estimators given as ``blend``.

        Parameters
        ----------
        **params : dict
            Names and values; nested ones are ``vectorizer__<name>`` and ``blend__<name>``. With a
            list as ``blend``, ``<member>`` and ``<member>__<name>``; a member that is 'drop' is
            left out.

        Returns
        -------
        self : object
            The estimator.

        Raises
        ------
        ValueError
            If there is no such parameter, or one of a ``blend`` that is no estimator.
        """
        self._check_names(params)
        blend = params.get("blend", self.blend)
        replaced = {name: params.pop(name) for name, _ in _pairs(blend) if name in params}
        if replaced:
            params["blend"] = [
                (entry[0], replaced.get(entry[0], entry[1])) if _is_pair(entry) else entry
                for entry in blend
            ]
        if _is_list(params.get("blend")):
            self.blend = params.pop("blend")  # first: parameters of its members may follow
        return super().set_params(**params)

    def _check_names(self, params):
        """Raise ValueError for a name of no parameter and no member."""
        blend = params.get("blend", self.blend)
        of_blend = [name for name in params if name.startswith("blend__")]
        if of_blend and (blend is None or isinstance(blend, str | list | tuple)):
            named = "name the member instead, <member>__<name>"
            remedy = named if _pairs(blend) else "set blend to an estimator of raw texts first"
            raise ValueError(
                f"{of_blend[0]} needs an estimator as blend; got blend={shorten(blend)}: {remedy}."
            )
        members = {name for name, _ in _pairs(blend)}
        own = {name: params[name] for name in params if name.partition("__")[0] not in members}
        super()._check_names(own)


def _pairs(blend) -> list[tuple[str, object]]:
    """Return the pairs of a list of members, whatever else it holds: it may not be checked yet."""
    return [tuple(entry) for entry in blend if _is_pair(entry)] if _is_list(blend) else []


def _is_list(blend) -> bool:
    return isinstance(blend, list | tuple)
