// The choice under a budget, as eckart.budget.allocate makes it with the allocation `greedy`: the same arithmetic in the
// same order, so that both choose the same.

/** Indices of the lower convex hull of (cost, error) among `allowed`, from the cheapest to the least error. */
function hull({ costs, errors }, allowed) {
  const found = [];
  for (const i of allowed) {
    if (found.length && errors[i] >= errors[found.at(-1)]) continue;
    if (found.length && costs[i] === costs[found.at(-1)]) found.pop();
    while (found.length >= 2) {
      const [a, b] = found.slice(-2);
      if ((errors[a] - errors[b]) * (costs[i] - costs[b]) > (errors[b] - errors[i]) * (costs[b] - costs[a])) break;
      found.pop();
    }
    found.push(i);
  }
  return found;
}

/** Candidates at or above the floor that cost less than the last one, and the last one, from cheap to dear. */
function atOrAbove({ costs }, floor) {
  const last = costs.at(-1);
  const kept = costs.map((_, i) => i).filter((i) => i === costs.length - 1 || (costs[i] >= floor * last && costs[i] < last));
  return kept.sort((a, b) => costs[a] - costs[b]);
}

/**
 * A function from a budget to an index for each matrix, or null where the cheapest candidates cost more.
 * matrices: [{costs, errors}], the last candidate being the dense matrix; floor: least share of it that each keeps.
 */
function solver(matrices, floor = 0.1) {
  const total = sum(matrices.map(({ costs }) => costs.at(-1)));
  const least = sum(matrices.map(({ costs }) => Math.min(...costs)));
  const ladders = new Map();

  /** The hulls above a floor, and their steps from the steepest fall of the error for cost to the flattest. */
  function ladder(share) {
    if (!ladders.has(share)) {
      ladders.clear();
      const allowed = matrices.map((matrix) => atOrAbove(matrix, share));
      const hulls = matrices.map((matrix, k) => hull(matrix, allowed[k]));
      const steps = matrices.flatMap(({ costs, errors }, k) => {
        let slope = Infinity;
        return hulls[k].slice(1).map((to, step) => {
          const from = hulls[k][step];
          const cost = costs[to] - costs[from];
          slope = Math.min(slope, (errors[from] - errors[to]) / cost);
          return { k, step, cost, slope };
        });
      });
      steps.sort((a, b) => b.slope - a.slope || a.k - b.k || a.step - b.step);
      const cheapest = sum(matrices.map(({ costs }, k) => costs[allowed[k][0]]));
      ladders.set(share, { hulls, steps, cheapest });
    }
    return ladders.get(share);
  }

  return (budget) => {
    if (budget < least) return null;
    let { hulls, steps, cheapest } = ladder(Math.min(floor, (0.5 * budget) / total));
    if (cheapest > budget) ({ hulls, steps } = ladder(0));
    const at = hulls.map(() => 0);
    const stuck = hulls.map(() => false);
    let left = budget - sum(matrices.map(({ costs }, k) => costs[hulls[k][0]]));
    for (const { k, cost } of steps) {
      if (stuck[k]) continue;
      if (cost <= left) { left -= cost; at[k] += 1; } else stuck[k] = true;
    }
    return hulls.map((indices, k) => indices[at[k]]);
  };
}
