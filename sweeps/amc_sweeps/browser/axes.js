// Ranges of axes. They always hold the best value.

const FAR_OUT = 3; // interquartile ranges beyond which a bad value is cut off, so that one divergence does not flatten all
const LISTED = 6; // distinct numbers of a parameter; more are a range
const LOG_FROM_RATIO = 8; // of a parameter's largest number to its smallest

// The range to draw, and the distance of its ticks: from the best value to the worst, except bad ones that lie far out,
// with round ends.
export function niceRange(values, maximize) {
  if (!values.length) return [0, 1, 0.2];
  const sorted = Float64Array.from(values).sort();
  let [low, high] = [sorted[0], sorted[sorted.length - 1]];
  if (sorted.length >= 4) {
    const lower = quantile(sorted, 0.25);
    const reach = FAR_OUT * (quantile(sorted, 0.75) - lower);
    if (reach > 0 && maximize) low = Math.max(low, lower - reach);
    else if (reach > 0) high = Math.min(high, quantile(sorted, 0.75) + reach);
  }
  if (high <= low) {
    const pad = Math.abs(low) * 0.05 || 0.5;
    [low, high] = [low - pad, high + pad];
  }
  // The ends are multiples of the step, so that all ticks have one distance.
  let [step, ends] = [0, [low, high]];
  for (;;) {
    const wider = tickStep((ends[1] - ends[0]) * 0.999);
    if (!(wider > step)) return [...ends.map((end) => +end.toPrecision(10)), step];
    step = wider;
    ends = [Math.floor(low / step) * step, Math.ceil(high / step) * step];
  }
}

// The distance of ticks: 1, 2 or 5 times a power of ten, so that there are about five.
function tickStep(width) {
  const power = 10 ** Math.floor(Math.log10(width / 5));
  return power * [1, 2, 5, 10].find((factor) => width / (power * factor) <= 6);
}

// A value as it is drawn: beyond the range it lies at the edge.
export function clamped(value, [low, high]) {
  return Math.max(low, Math.min(value, high));
}

// How far a run's mark lies from its listed value, so that runs of one value do not cover each other: up to 0.2 of the
// distance between two values, always the same.
export function spread(place) {
  return (((place * 0.618034) % 1) - 0.5) * 0.4;
}

function quantile(sorted, share) {
  const place = share * (sorted.length - 1);
  const below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
}

// Whether a parameter's values are shown along a numeric axis or as categories, and which.
export function parameterAxis(parameter, values) {
  const present = values.filter((value) => value !== null);
  const distinct = new Map(present.map((value) => [JSON.stringify(value), value]));
  const isNumeric = present.length > 0 && present.every((value) => typeof value === "number");
  if (isNumeric && distinct.size > LISTED) {
    const [low, high] = present.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
    const isLog = low > 0 && (parameter.log ?? high / low >= LOG_FROM_RATIO);
    return { kind: isLog ? "log" : "value", levels: [], low, high };
  }
  const listed = parameter.listed.map((value) => JSON.stringify(value));
  const keys = [...new Set([...listed.filter((key) => distinct.has(key)), ...distinct.keys()])];
  const levels = keys.map((key) => distinct.get(key));
  return { kind: "category", levels: isNumeric ? levels.sort((a, b) => a - b) : levels };
}
