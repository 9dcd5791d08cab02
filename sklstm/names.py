"""Names that users get wrong, of parameters and of their values: what was meant."""

from difflib import get_close_matches
from inspect import Parameter, signature

from sklstm.checks import (
    InvalidParameterError,
    StrOptions,
    shorten,
    validate_parameter_constraints,
)

#: What parameters are called in Keras, PyTorch, scikit-learn, and in earlier versions of sklstm.
OTHER_NAMES = {
    "baseline": "blend",
    "drop_rate": "dropout",
    "dropout_rate": "dropout",
    "embed_dim": "embedding_dim",
    "embedding_size": "embedding_dim",
    "epochs": "max_epochs",
    "hidden_dim": "hidden_size",
    "hidden_layer_sizes": "hidden_size",
    "learning_rate": "lr",
    "learning_rate_init": "lr",
    "max_iter": "max_epochs",
    "max_len": "max_length",
    "maxlen": "max_length",
    "metrics": "scoring",
    "n_epochs": "max_epochs",
    "n_hidden": "hidden_size",
    "n_layers": "num_layers",
    "num_epochs": "max_epochs",
    "num_words": "max_features",
    "output_dim": "embedding_dim",
    "patience": "n_iter_no_change",
    "seed": "random_state",
    "segments": "read_by",
    "units": "hidden_size",
    "validation_split": "validation_fraction",
    "vector_size": "embedding_dim",
    "vocab_size": "max_features",
}
#: The same for values.
OTHER_VALUES = {
    "auc": "roc_auc",
    "average": "mean",
    "avg": "mean",
    "auto": "balanced",
    "cpu": "torch",
    "fp32": "float32",
    "bf16": "bfloat16",
    "mae": "neg_mean_absolute_error",
    "mse": "neg_mean_squared_error",
    "native": "compiled",
    "rmse": "neg_root_mean_squared_error",
}


def nearest(name: str, names, others: dict[str, str] = OTHER_VALUES) -> str | None:
    """Return which of some names a wrong one was meant to be, or None.

    Parameters
    ----------
    name : str
        The wrong one.
    names : iterable of str
        The right ones.
    others : dict
        Right names by what they are called elsewhere.

    Examples
    --------
    >>> from sklstm.names import nearest
    >>> nearest("f1-macro", ["f1_micro", "f1_macro"])
    'f1_macro'
    """
    names = sorted(names)
    plain = name.lower().replace("-", "_").replace(" ", "_")
    if others.get(plain) in names:
        return others[plain]
    longer = [name for name in names if len(plain) > 1 and name.startswith(plain)]
    found = longer if len(longer) == 1 else get_close_matches(plain, names, n=1)
    return found[0] if found else None


def did_you_mean(name, names, others: dict[str, str] = OTHER_VALUES) -> str:
    """Return the question after the nearest name, with a space in front, or nothing."""
    found = nearest(name, names, others) if isinstance(name, str) else None
    return "" if found is None else f" Did you mean {found!r}?"


def _name_owner(name: str) -> str:
    """Return which estimator of ours has a parameter of this name, with a space in front."""
    kinds, owners = [NamedParameters], []
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if kind.__module__.startswith("sklstm.") and name in signature(kind.__init__).parameters:
            owners.append(kind.__name__)
    return f" It is a parameter of {' and '.join(sorted(owners))}." if owners else ""


class NamedParameters:
    """A base class of estimators that says what was meant by a misspelt parameter or value.

    The constructor is checked in ``__new__``: scikit-learn reads the signature of ``__init__``,
    which must name all parameters and no others.
    """

    #: The class of an estimator that is a parameter, whose own parameters users give to this one.
    _parts: dict[str, type] = {}
    #: What to do about a wrong value, by parameter.
    _remedies: dict[str, str] = {}

    def __new__(cls, *args, **params):
        """Return an instance without attributes; refuse parameters that ``__init__`` lacks."""
        _, *own = signature(cls.__init__).parameters.values()
        kinds = {parameter.kind for parameter in own}
        if args and kinds == {Parameter.KEYWORD_ONLY}:
            raise TypeError(
                f"{cls.__name__}() takes its parameters by name (name=value); got "
                f"{shorten(args[0])} as a positional argument."
            )
        if Parameter.VAR_KEYWORD not in kinds:
            names = [parameter.name for parameter in own]
            for name, value in params.items():
                if name not in names:
                    raise TypeError(
                        f"{cls.__name__}() got an unexpected keyword argument {name!r}."
                        f"{cls._suggest(name, names, value)}"
                    )
        return super().__new__(cls)

    @classmethod
    def _suggest(cls, name, names, value) -> str:
        """Return what to write in place of a parameter that the constructor lacks."""
        part, delimiter, nested = name.partition("__")
        if delimiter and part in names:
            setting = f"set_params({name}={shorten(value)})"
            if part in cls._parts:
                return f" Write {cls._in_part(part, nested, value)}, or use {setting}."
            return f" It belongs to the estimator that is given as {part}; {setting} sets it later."
        for part, kind in cls._parts.items():
            theirs = OTHER_NAMES.get(name, name)
            if theirs in signature(kind).parameters and theirs not in names:
                return f" Write {cls._in_part(part, theirs, value)}."
        return did_you_mean(name, names, OTHER_NAMES) or _name_owner(name)

    @classmethod
    def _in_part(cls, part, name, value):
        return f"{part}={cls._parts[part].__name__}({name}={shorten(value)})"

    def set_params(self, **params):
        """Set parameters, if all of them exist.

        Parameters
        ----------
        **params : dict
            Names and values; nested ones are ``<parameter>__<name>``.

        Returns
        -------
        self : object
            The estimator.

        Raises
        ------
        ValueError
            If there is no such parameter. None is set then.
        """
        self._check_names(params)
        return super().set_params(**params)

    def _check_names(self, params):
        """Raise ValueError for a name that is none of a parameter, nested ones included."""
        names = self._get_param_names()
        for name in params:
            own, delimiter, nested = name.partition("__")
            if own not in names:
                hint = did_you_mean(own, names, OTHER_NAMES)
                for part, kind in self._parts.items():
                    theirs = OTHER_NAMES.get(own, own)
                    if not delimiter and theirs in signature(kind).parameters:
                        hint = f" Did you mean '{part}__{theirs}'?"
                raise ValueError(
                    f"Invalid parameter {own!r} for estimator {type(self).__name__}."
                    f"{hint or ' get_params() shows all.'}"
                )
            part = params.get(own, getattr(self, own))
            if delimiter and isinstance(part, NamedParameters):
                part._check_names({nested: params[name]})

    def _validate_params(self):
        """Raise InvalidParameterError for a value that a parameter cannot have."""
        for name in self._parameter_constraints:
            value = getattr(self, name)
            if isinstance(value, type) and hasattr(value, "get_params"):
                raise InvalidParameterError(
                    f"The {name!r} parameter of {type(self).__name__} must be an estimator; got "
                    f"the class {value.__name__}. Make one: {value.__name__}()."
                )
            try:
                validate_parameter_constraints(
                    self._parameter_constraints, {name: value}, type(self).__name__
                )
            except InvalidParameterError as error:
                must_be = str(error).removesuffix(f" Got {value!r} instead.")
                raise InvalidParameterError(
                    f"{must_be} Got {shorten(value)} instead.{self._remedy(name, value)}"
                ) from None

    def _remedy(self, name, value):
        """Return what to do about a wrong value, with a space in front, or nothing."""
        options = {
            option
            for constraint in self._parameter_constraints[name]
            if isinstance(constraint, StrOptions)
            for option in constraint.options
        }
        remedy = self._remedies.get(name)
        return did_you_mean(value, options) or ("" if remedy is None else f" {remedy}")
