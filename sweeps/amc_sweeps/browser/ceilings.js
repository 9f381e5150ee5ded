// The best accuracy that any receiver can reach, by SNR level: the likelihood bound that `amc-data ceiling` measures.
// From tests/benchmarks/results/ceilings.md, 10,200 frames a level.

const BOUND_OF = [ // digital17
  "4ASK", "8ASK", "BPSK", "QPSK", "8PSK", "16PSK", "32PSK", "16APSK", "32APSK", "64APSK", "128APSK", "16QAM", "32QAM",
  "64QAM", "128QAM", "256QAM", "OQPSK",
];
const [BOUND_FROM_DB, BOUND_STEP_DB] = [-20, 2];
const BOUND = [
  0.089, 0.099, 0.119, 0.147, 0.186, 0.244, 0.302, 0.382, 0.461, 0.546, 0.662, 0.758, 0.851, 0.937, 0.989, 1, 1, 1, 1, 1, 1,
  1, 1, 1, 1, 1,
];

// The ceiling at some levels as points of a chart; null for classes of which no bound is on record.
export function ceilingPoints(names, levels) {
  if (names.length !== BOUND_OF.length || !BOUND_OF.every((name) => names.includes(name))) return null;
  const points = levels.map((level) => [level, BOUND[(level - BOUND_FROM_DB) / BOUND_STEP_DB]]);
  return points.filter(([, share]) => share !== undefined);
}
