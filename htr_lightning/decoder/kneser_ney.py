"""Interpolated modified Kneser-Ney estimation of n-gram models."""

import math

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

FALLBACK = (0.5, 1.0, 1.5)  # discounts where counts of counts give none, as in KenLM's --discount_fallback
NEVER = -99 * math.log(10)  # log-probability of what is never predicted, as ARPA files give it to <s>


def estimate(
    ids: Int[ndarray, " T"], vocabulary: int, order: int, min_count: int = 1
) -> tuple[Int[ndarray, " N"], Float[ndarray, " M"], Float[ndarray, " M"]]:
    """The n-grams of some lines as a trie with log-probabilities and backoff weights.

    Chen & Goodman (1999), "An empirical study of smoothing techniques for language modeling", equations 22 to 26, as
    KenLM has it (Heafield et al., 2013): n-grams that begin with <s>, which nothing precedes, keep their own counts,
    and unigrams are interpolated with the uniform distribution over all symbols but <s>.

    Args:
        ids: the lines one behind the other, each from <s> to </s>.
        vocabulary: number V of symbols; the last three are </s>, <unk> and <s>.
        order: of the longest n-grams.
        min_count: n-grams of three and more symbols that occur less often are left out.

    Returns:
        keys: of nodes 1 to N, ascending: node of the n-gram without its last symbol * V + last symbol. Node 0 is the
            empty n-gram; then come all V unigrams, then the bigrams, and so on.
        log_probs: natural logarithm of p(last symbol | symbols before), of nodes 0 to N.
        backoffs: natural logarithm of the weight of the shorter context behind this one, of nodes 0 to N.
    """
    keys, raw, links, orders = _count(ids, vocabulary, order)
    parents = np.concatenate([[0], keys // vocabulary])
    kept = (raw >= min_count) | (np.arange(len(raw)) < orders[min(2, len(orders)) - 1].stop)

    before = np.bincount(links, minlength=len(raw))  # distinct symbols that an n-gram is seen behind
    counts = np.where(before > 0, before, raw)
    counts[0] = counts[vocabulary] = 0  # neither the empty n-gram nor <s> is predicted
    left = np.zeros(len(raw))  # of each count after discounting
    for nodes in orders:
        left[nodes] = counts[nodes] - discounts(counts[nodes])[np.minimum(counts[nodes], 3)]
    left[~kept] = 0

    total = np.bincount(parents, weights=counts, minlength=len(raw))
    used = np.bincount(parents, weights=left, minlength=len(raw))
    ends = total == 0  # nothing follows, such as behind </s>
    total[ends] = 1
    backoffs = np.where(ends, 1, (total - used) / total)
    probs = np.full(len(raw), 1 / (vocabulary - 1))
    for nodes in orders:
        context = parents[nodes]
        probs[nodes] = left[nodes] / total[context] + backoffs[context] * probs[links[nodes]]

    number = np.cumsum(kept) - 1
    keys = (number[parents] * vocabulary)[1:][kept[1:]] + (keys % vocabulary)[kept[1:]]
    log_probs, log_backoffs = np.log(probs[kept]), np.log(backoffs[kept])
    log_probs[0] = log_backoffs[0] = 0  # there is nothing shorter
    log_probs[vocabulary] = NEVER
    return keys, log_probs.astype(np.float32), log_backoffs.astype(np.float32)


def discounts(counts: Int[ndarray, " N"]) -> Float[ndarray, " 4"]:
    """What is taken from counts of 0, 1, 2, and 3 or more, given all counts of an order (equation 26)."""
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
    """The keys of all n-grams; of all nodes how often they occur and the node without the first symbol; and the nodes
    of each order."""
    keys = [np.arange(vocabulary)]
    raw = [np.zeros(1, np.int64), np.bincount(ids, minlength=vocabulary)]
    links = [np.zeros(1 + vocabulary, np.int64)]
    orders = [slice(1, 1 + vocabulary)]
    nodes = ids.astype(np.int64) + 1  # of the n-gram that ends at each place
    places = np.arange(len(ids))  # where n-grams of this order end
    for _ in range(order - 1):
        places = places[ids[places] != vocabulary - 3] + 1  # but for </s>, all go on
        if not len(places):
            break  # no line is longer
        found, inverse, count = np.unique(
            nodes[places - 1] * vocabulary + ids[places], return_inverse=True, return_counts=True
        )
        link = np.empty(len(found), np.int64)
        link[inverse] = nodes[places]
        nodes[places] = orders[-1].stop + inverse
        orders.append(slice(orders[-1].stop, orders[-1].stop + len(found)))
        keys.append(found)
        raw.append(count)
        links.append(link)
    return np.concatenate(keys), np.concatenate(raw), np.concatenate(links), orders
