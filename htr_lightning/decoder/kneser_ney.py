"""Estimate n-gram models with interpolated modified Kneser-Ney smoothing."""

import math

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

FALLBACK = (0.5, 1.0, 1.5)  # discounts used if they cannot be estimated, as with KenLM's --discount_fallback
NEVER = -99 * math.log(10)  # log-probability of <s>, which is never predicted, as in ARPA files


def estimate(
    ids: Int[ndarray, " T"], vocabulary: int, order: int, min_count: int = 1
) -> tuple[Int[ndarray, " N"], Float[ndarray, " M"], Float[ndarray, " M"]]:
    """Estimate an n-gram model, and return it as a trie with log-probabilities and backoff weights.

    The estimate follows Chen & Goodman (1999), "An empirical study of smoothing techniques for language modeling",
    equations 22 to 26, as implemented in KenLM (Heafield et al., 2013): n-grams that begin with <s> use raw counts, and
    unigrams are interpolated with the uniform distribution over all symbols except <s>.

    Args:
        ids: symbol ids of the concatenated lines, each from <s> to </s>.
        vocabulary: number V of symbols, the last three of which are </s>, <unk> and <s>.
        order: maximum length of the n-grams.
        min_count: minimum count of n-grams with three or more symbols; less frequent ones are dropped.

    Returns:
        The keys of nodes 1 to N in ascending order; the natural logarithm of p(last symbol | previous symbols) for
        nodes 0 to N; and the natural logarithm of the backoff weight for nodes 0 to N. The key of a node is its
        parent's number * V + its last symbol, where the parent is the n-gram without the last symbol. Node 0 is the
        empty n-gram, followed by all V unigrams, the bigrams, and so on.
    """
    keys, raw, links, orders = _count(ids, vocabulary, order)
    parents = np.concatenate([[0], keys // vocabulary])
    kept = (raw >= min_count) | (np.arange(len(raw)) < orders[min(2, len(orders)) - 1].stop)

    before = np.bincount(links, minlength=len(raw))  # number of distinct symbols that precede an n-gram
    counts = np.where(before > 0, before, raw)
    counts[0] = counts[vocabulary] = 0  # neither the empty n-gram nor <s> is predicted
    left = np.zeros(len(raw))  # discounted counts
    for nodes in orders:
        left[nodes] = counts[nodes] - discounts(counts[nodes])[np.minimum(counts[nodes], 3)]
    left[~kept] = 0

    total = np.bincount(parents, weights=counts, minlength=len(raw))
    used = np.bincount(parents, weights=left, minlength=len(raw))
    ends = total == 0  # contexts without a following symbol, such as </s>
    total[ends] = 1
    backoffs = np.where(ends, 1, (total - used) / total)
    probs = np.full(len(raw), 1 / (vocabulary - 1))
    for nodes in orders:
        context = parents[nodes]
        probs[nodes] = left[nodes] / total[context] + backoffs[context] * probs[links[nodes]]

    number = np.cumsum(kept) - 1
    keys = (number[parents] * vocabulary)[1:][kept[1:]] + (keys % vocabulary)[kept[1:]]
    log_probs, log_backoffs = np.log(probs[kept]), np.log(backoffs[kept])
    log_probs[0] = log_backoffs[0] = 0  # the empty n-gram has no shorter context
    log_probs[vocabulary] = NEVER
    return keys, log_probs.astype(np.float32), log_backoffs.astype(np.float32)


def discounts(counts: Int[ndarray, " N"]) -> Float[ndarray, " 4"]:
    """Return the discounts for counts 0, 1, 2, and 3 or more, given all counts of an order (equation 26)."""
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
    """Count all n-grams, and return their keys, their counts, their links and the nodes of each order.

    The link of a node is the n-gram without its first symbol.
    """
    keys = [np.arange(vocabulary)]
    raw = [np.zeros(1, np.int64), np.bincount(ids, minlength=vocabulary)]
    links = [np.zeros(1 + vocabulary, np.int64)]
    orders = [slice(1, 1 + vocabulary)]
    nodes = ids.astype(np.int64) + 1  # node of the n-gram that ends at each position
    ends = np.arange(len(ids))  # positions where n-grams of this order end
    for _ in range(order - 1):
        ends = ends[ids[ends] != vocabulary - 3] + 1  # every symbol except </s> is followed by another
        if not len(ends):
            break  # no line contains longer n-grams
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
