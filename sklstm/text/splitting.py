"""Which texts are held out: by chance, equal texts together, labels in proportion."""

import numpy as np
from scipy import sparse


def split_rows(
    texts: list[str],
    strata: np.ndarray | None = None,  # (n_texts,) whole numbers from 0, or an indicator
    *,
    fraction: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the rows to train on and the rows held out, or None where none can be spared.

    Each stratum contributes its share, as nearly as it can; None is one stratum. An indicator of
    shape (n_texts, n_strata) says which strata each text is in. Equal texts stay on one side: the
    network would know a text that is on both by heart. A stratum whose share rounds to 0 texts
    contributes none.
    """
    if round(fraction * len(texts)) == 0:
        return np.arange(len(texts)), None
    strata = np.zeros(len(texts), dtype=np.int64) if strata is None else strata
    _, group = np.unique(np.asarray(texts, dtype=object), return_inverse=True)
    hold_out = _hold_out if strata.ndim == 1 else _hold_out_label_sets
    held_out = hold_out(group, strata, fraction, rng)
    others = np.flatnonzero(held_out)
    return np.flatnonzero(~held_out), others if len(others) else None


def _hold_out(group, strata, fraction, rng):
    """Return which texts are held out, (n_texts,) of bool, where each is in one stratum.

    None contributes more than its share or its last text.
    """
    in_group = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
    in_stratum = np.bincount(strata)
    room = np.minimum(np.round(fraction * in_stratum).astype(np.int64), in_stratum - 1)
    held_out = np.zeros(len(group), dtype=bool)
    for candidate in rng.permutation(len(in_group)):
        rows = in_group[candidate]
        # Equal texts can be of different strata.
        own, counts = np.unique(strata[rows], return_counts=True)
        if (counts <= room[own]).all():
            held_out[rows] = True
            room[own] -= counts
            if not (room > 0).any():
                break
    return held_out


def _hold_out_label_sets(group, indicator, fraction, rng):
    """Return which texts are held out, (n_texts,) of bool, by iterative stratification.

    The label with the fewest texts that are left comes first. Each of these texts goes to the side
    that still lacks most texts of this label; where both lack as many, to the side that lacks most
    texts. Here a group of equal texts is one text that counts several times.

    References
    ----------
    Sechidis, Tsoumakas & Vlahavas (2011), On the Stratification of Multi-Label Data.
    """
    n_groups, n_texts = group.max() + 1, len(group)
    members = sparse.csr_array((np.ones(n_texts), (group, np.arange(n_texts))))
    of_group = sparse.csr_array(members @ sparse.csr_array(indicator.astype(float)))
    of_label = of_group.tocsc()
    sizes = np.bincount(group)
    # What the two sides, training and held out, still lack.
    sides = np.array([1 - fraction, fraction])
    lacks = sides[:, None] * indicator.sum(axis=0)
    lacks_texts = sides * n_texts
    left = np.diff(of_label.indptr)  # groups of each label
    side = np.full(n_groups, -1)

    def place(candidates, lacking):
        for candidate in candidates[rng.permutation(len(candidates))]:
            wanted = lacking()
            if wanted[0] == wanted[1]:
                wanted = lacks_texts
            chosen = int(wanted[1] > wanted[0])
            side[candidate] = chosen
            own = slice(of_group.indptr[candidate], of_group.indptr[candidate + 1])
            labels = of_group.indices[own]
            lacks[chosen, labels] -= of_group.data[own]
            lacks_texts[chosen] -= sizes[candidate]
            left[labels] -= 1

    while left.any():
        label = np.where(left > 0, left, n_groups + 1).argmin()
        groups = of_label.indices[of_label.indptr[label] : of_label.indptr[label + 1]]
        place(groups[side[groups] < 0], lambda label=label: lacks[:, label])
    place(np.flatnonzero(side < 0), lambda: lacks_texts)
    if side.all():  # something must be left to train on
        side[rng.integers(n_groups)] = 0
    return side[group] == 1
