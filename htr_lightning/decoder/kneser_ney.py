"""Interpolated modified Kneser-Ney estimation of n-gram models."""

import math

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

FALLBACK = (0.5, 1.0, 1.5)  # discounts if counts of counts give none, as KenLM's --discount_fallback
NEVER = -99 * math.log(10)  # log-probability of what is never predicted, as of <s> in ARPA files


def estimate(
    ids: Int[ndarray, " T"], vocabulary: int, order: int, min_count: int = 1
) -> tuple[Int[ndarray, " N"], Float[ndarray, " M"], Float[ndarray, " M"]]:
    """The n-grams of some lines, as a trie with log-probabilities and backoff weights.

    Chen & Goodman (1999), "An empirical study of smoothing techniques for language modeling", equations 22 to 26, as
    in KenLM (Heafield et al., 2013): n-grams that begin with <s>, which nothing precedes, keep their own counts, and
    unigrams are interpolated with the uniform distribution over all symbols but <s>.

    Args:
        ids: the concatenated lines, each from <s> to </s>.
        vocabulary: number V of symbols; the last three are </s>, <unk> and <s>.
        order: of the longest n-grams.
        min_count: n-grams of three or more symbols that occur less often are dropped.

    Returns:
        keys: of nodes 1 to N, ascending: node of the n-gram without its last symbol * V + last symbol. Node 0 is the
            empty n-gram, followed by all V unigrams, the bigrams, and so on.
        log_probs: natural logarithm of p(last symbol | previous symbols), of nodes 0 to N.
        backoffs: natural logarithm of the weight of the next shorter context, of nodes 0 to N.
    """
    keys, raw, links, orders = _count(ids, vocabulary, order)
    parents = np.concatenate([[0], keys // vocabulary])
    kept = (raw >= min_count) | (np.arange(len(raw)) < orders[min(2, len(orders)) - 1].stop)

    before = np.bincount(links, minlength=len(raw))  # number of distinct symbols before an n-gram
    counts = np.where(before > 0, before, raw)
    counts[0] = counts[vocabulary] = 0  # neither the empty n-gram nor <s> is predicted
    left = np.zeros(len(raw))  # of each count, after discounting
    for nodes in orders:
        left[nodes] = counts[nodes] - discounts(counts[nodes])[np.minimum(counts[nodes], 3)]
    left[~kept] = 0

    total = np.bincount(parents, weights=counts, minlength=len(raw))
    used = np.bincount(parents, weights=left, minlength=len(raw))
    ends = total == 0  # nothing follows, as after </s>
    total[ends] = 1
    backoffs = np.where(ends, 1, (total - used) / total)
    probs = np.full(len(raw), 1 / (vocabulary - 1))
    for nodes in orders:
        context = parents[nodes]
        probs[nodes] = left[nodes] / total[context] + backoffs[context] * probs[links[nodes]]

    number = np.cumsum(kept) - 1
    keys = (number[parents] * vocabulary)[1:][kept[1:]] + (keys % vocabulary)[kept[1:]]
    log_probs, log_backoffs = np.log(probs[kept]), np.log(backoffs[kept])
    log_probs[0] = log_backoffs[0] = 0  # there is no shorter context
    log_probs[vocabulary] = NEVER
    return keys, log_probs.astype(np.float32), log_backoffs.astype(np.float32)


def discounts(counts: Int[ndarray, " N"]) -> Float[ndarray, " 4"]:
    """The discounts of counts 0, 1, 2, and 3 or more, given all counts of an order (equation 26)."""
    _, n1, n2, n3, n4 = np.bincount(np.minimum(counts, 5), minlength=6)[:5].tolist()
    if min(n1, n2, n3) > 0:
        y = n1 / (n1 + 2 * n2)
        found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        if all(discount > 0 for discount in found):
            return np.array([0, *found])
    return np.array([0, *FALLBACK])


def _count(
    ids: Int[ndarray, " T"], vocabulary: int, order: int
) -> tuple[Int[ndarray, " N"], Int[ndarray, " M"], Int[ndarray, " M"], list[slice]]:
    """The keys of all n-grams; how often each node occurs, and the node without its first symbol; and the nodes of each
    order."""
    keys = [np.arange(vocabulary)]
    raw = [np.zeros(1, np.int64), np.bincount(ids, minlength=vocabulary)]
    links = [np.zeros(1 + vocabulary, np.int64)]
    orders = [slice(1, 1 + vocabulary)]
    nodes = ids.astype(np.int64) + 1  # of the n-gram that ends at each position
    ends = np.arange(len(ids))  # positions where n-grams of this order end
    for _ in range(order - 1):
        ends = ends[ids[ends] != vocabulary - 3] + 1  # all but </s> are followed by a symbol
        if not len(ends):
            break  # no line is longer
        found, inverse, count = np.unique(
            nodes[ends - 1] * vocabulary + ids[ends], return_inverse=True, return_counts=True
        )
        link = np.empty(len(found), np.int64)
        link[inverse] = nodes[ends]
        nodes[ends] = orders[-1].stop + inverse
        orders.append(slice(orders[-1].stop, orders[-1].stop + len(found)))
        keys.append(found)
        raw.append(count)
        links.append(link)
    return np.concatenate(keys), np.concatenate(raw), np.concatenate(links), orders
