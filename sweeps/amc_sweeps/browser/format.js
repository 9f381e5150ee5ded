// How values and texts are written for people.

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const LARGEST_IN_FULL = 1e6; // from here on values are written as powers of ten

export function escaped(text) {
  return String(text).replace(/[&<>"']/g, (character) => ENTITIES[character]);
}

// A value of the sweep's metric, as commands and reports write it.
export function metricText(sweep, value) {
  if (value === null || value === undefined) return "-";
  if (typeof value === "string") return value.replace("Infinity", "inf"); // NaN, Infinity, -Infinity
  if (sweep.percentage) return (100 * value).toFixed(2) + "%";
  return Math.abs(value) < LARGEST_IN_FULL ? value.toFixed(sweep.decimals) : value.toExponential(2);
}

// A value at a tick of a metric's axis.
export function tickText(sweep, value) {
  return sweep.percentage ? +(100 * value).toPrecision(6) + "%" : shortNumber(value, 6);
}

// A number with some significant digits, as commands and reports write it: 0.0001, 1e-05.
export function shortNumber(value, digits = 4) {
  if (Number.isInteger(value) && Math.abs(value) < LARGEST_IN_FULL) return String(value);
  const [size, exponent] = value.toExponential(digits - 1).split("e");
  if (Number(exponent) >= -4 && Number(exponent) < Math.max(digits, 6)) return String(+value.toPrecision(digits));
  return `${+size}e${exponent[0]}${exponent.slice(1).padStart(2, "0")}`;
}

// A parameter's value.
export function settingText(value) {
  if (value === null || value === undefined) return "-";
  return typeof value === "number" ? shortNumber(value) : String(value);
}

export function epochText(epoch) {
  return epoch === null || epoch === undefined ? "-" : Number.isInteger(epoch) ? String(epoch) : epoch.toFixed(1);
}

export function progressText(run) {
  const epochs = run.epochs === null ? "-" : String(run.epochs);
  return run.planned === null ? epochs : `${epochs}/${run.planned}`;
}

export function durationText(seconds) {
  if (seconds === null || seconds === undefined) return "-";
  const whole = Math.round(seconds);
  for (const [unitS, unit, partS, part] of [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]]) {
    if (whole < unitS) continue;
    const rest = Math.floor((whole % unitS) / partS);
    return `${Math.floor(whole / unitS)} ${unit}` + (rest && whole < 10 * unitS ? ` ${rest} ${part}` : "");
  }
  return `${whole} s`;
}

export function counted(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

export function runLabel(run) {
  return run.name === run.id ? run.id : `${run.name} (${run.id})`;
}
