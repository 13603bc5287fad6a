"use strict";
(() => {
  const AXES = ["system", "python", "torch", "cuda", "release"];
  const [SYSTEM, PYTHON, TORCH, CUDA, RELEASE] = AXES.keys();
  // The kinds of a combination, best first; only the first two can be chosen.
  const WHEEL = 0, YANKED = 1, PLANNED = 2, EXCLUDED = 3, UNPLANNED = 4, NONE = 5;
  const find = (id) => document.getElementById(id);
  const data = JSON.parse(find("data").textContent);
  const label = (axis, index) => data.labels[axis][index];
  // The URL becomes part of shell commands: characters with a meaning in a shell are percent-encoded.
  const base = new URL(".", location.href).href
    .replace(/[^A-Za-z0-9:/._~%@[\]-]/g, (sign) => "%" + sign.charCodeAt(0).toString(16).toUpperCase())
    .replace(/\/$/, "");
  for (const lines of document.querySelectorAll("pre.address")) lines.textContent = lines.textContent.replaceAll("ADDRESS", base);

  const combinations = everyCombination();
  const inputs = AXES.map((axis) => [...document.querySelectorAll(`#${axis} input`)]);
  // The last request on each axis; while it is not available, another option is chosen.
  let wish = [];
  let choice = [];

  function everyCombination() {
    const at = (variant, target) => {
      const [, release, cuda, torch] = data.variants[variant];
      const [python, system] = data.targets[target];
      return [system, python, torch, cuda, release];
    };
    const found = data.wheels.map(([variant, target, , , , yanked = 0], row) =>
      ({ at: at(variant, target), kind: yanked ? YANKED : WHEEL, row }));
    for (const [variant, target] of data.planned) found.push({ at: at(variant, target), kind: PLANNED });
    for (const [variant, target, reason] of data.excluded) found.push({ at: at(variant, target), kind: EXCLUDED, reason });
    for (const [torch, cuda, target] of data.unplanned) {
      const [python, system] = data.targets[target];
      found.push({ at: [system, python, torch, cuda, null], kind: UNPLANNED });
    }
    return found;
  }

  const below = (prefix) => combinations.filter(({ at }) => prefix.every((index, axis) => at[axis] === index));
  const best = (found) => found.reduce((one, other) => (other.kind < one.kind ? other : one), { kind: NONE });

  // Returns the best combination for each option of an axis, given the choices on the axes before it.
  function options(axis) {
    const found = below(choice.slice(0, axis));
    return data.axes[axis].map((_, index) => best(found.filter(({ at }) => at[axis] === index)));
  }

  // Returns the date of the observation of torch builds for the option `index` of an axis.
  function observed(axis, index) {
    const date = axis === CUDA ? data.observed.cuda[index] : data.observed.all;
    return date ? `as of ${date}` : "according to PyTorch's release notes, not observed";
  }

  function reason(axis, combination, index) {
    if (combination.kind === PLANNED) return "not yet published";
    if (combination.kind === EXCLUDED) return data.reasons[combination.reason];
    if (combination.kind === UNPLANNED) return `torch has a build (${observed(axis, index)}), but no wheel for it is planned`;
    const here = `Python ${label(PYTHON, choice[PYTHON])} on ${label(SYSTEM, choice[SYSTEM])}`;
    if (axis === TORCH) return `torch has no CUDA build for ${here} (${observed(axis, index)})`;
    if (axis === CUDA) return `torch ${label(TORCH, choice[TORCH])} has no such build for ${here} (${observed(axis, index)})`;
    return "not planned";
  }

  // Chooses an available combination, as close to the wish as possible; returns the axes where it differs.
  function choose() {
    const missed = [];
    choice = [];
    for (const axis of AXES.keys()) {
      const found = options(axis);
      const preferred = axis === CUDA ? [data.axes[CUDA].indexOf(data.default_cuda), ...found.keys()] : [...found.keys()];
      const possible = (kind) => preferred.find((index) => index >= 0 && found[index].kind === kind);
      const wished = found[wish[axis]];
      const chosen = wished && wished.kind <= YANKED ? wish[axis] : possible(WHEEL) ?? possible(YANKED);
      if (wished && chosen !== wish[axis]) missed.push({ axis, chosen, why: reason(axis, wished, wish[axis]) });
      show(axis, found, chosen);
      choice.push(chosen);
    }
    return missed;
  }

  const named = (axis, index) => `${["", "Python ", "torch ", "CUDA ", "nvdiffrast "][axis]}${label(axis, index)}`;

  function show(axis, found, chosen) {
    const groups = new Map();
    const list = document.querySelector(`#${AXES[axis]} .reasons`);
    list.replaceChildren();
    inputs[axis].forEach((input, index) => {
      const { kind } = found[index];
      input.disabled = kind > YANKED;
      input.checked = index === chosen;
      input.removeAttribute("aria-describedby");
      const why = kind > YANKED ? reason(axis, found[index], index) : kind === YANKED ? "yanked" : "";
      input.title = why;
      if (why) groups.set(why, [...(groups.get(why) ?? []), index]);
    });
    for (const [why, members] of groups) {
      const item = document.createElement("li");
      item.id = `${AXES[axis]}-${list.children.length}`;
      item.append(element("b", members.map((index) => label(axis, index)).join(", ")), `: ${why}`);
      list.append(item);
      for (const index of members) inputs[axis][index].setAttribute("aria-describedby", item.id);
    }
  }

  function element(name, text, attributes = {}) {
    const made = Object.assign(document.createElement(name), attributes);
    made.textContent = text;
    return made;
  }

  function update() {
    const missed = choose();
    find("notice").textContent = missed
      .map(({ axis, chosen, why }) => `${named(axis, wish[axis])} → ${named(axis, chosen)}, because: ${why}.`.replace("..", "."))
      .join(" ");
    const { row } = best(below(choice));
    describe(row);
    history.replaceState(null, "", "#" + new URLSearchParams(AXES.map((axis, i) => [axis, data.axes[i][choice[i]]])));
  }

  function describe(row) {
    const [variant, target, architectures = 0, gpu = 0, waiver = 0, yanked = 0, partial = 0] = data.wheels[row];
    const wheel = { name: `nvdiffrast-${data.variants[variant][0]}-${data.targets[target][2]}`, row, gpu };
    const filled = { BASE: base, CUDA: data.axes[CUDA][choice[CUDA]], TORCH: data.axes[TORCH][choice[TORCH]] };
    filled.RELEASE = data.axes[RELEASE][choice[RELEASE]];
    for (const tool of ["pip", "uv", "pyproject"]) {
      find(tool).textContent = data.commands[tool].replace(/@(BASE|CUDA|TORCH|RELEASE)@/g, (_, key) => filled[key]);
    }
    const torch = data.torches.find((row) => row[0] === choice[TORCH] && row[1] === choice[CUDA] && row[2] === choice[SYSTEM]);
    [find("torch-pip").textContent, find("torch-uv").textContent] = torch.slice(3);
    find("summary").textContent = AXES.map((_, axis) => named(axis, choice[axis])).reverse().join(", ");
    find("expected").textContent = `${label(TORCH, choice[TORCH])}.x and ${label(CUDA, choice[CUDA])}`;
    find("how").hidden = yanked > 0;
    warn(gpu, partial, waiver && data.reasons[waiver - 1], yanked && data.reasons[yanked - 1]);
    detail(wheel, data.architectures[architectures]);
  }

  function warn(gpu, partial, waiver, yanked) {
    const warnings = [];
    if (yanked !== 0) warnings.push(["Yanked; pip and uv skip this wheel, choose another release: ", yanked]);
    if (partial) warnings.push(["Partial: ", "compiled for fewer GPUs than usual, for a rehearsal"]);
    if (gpu === 1) warnings.push(["Not run on a GPU: ", waiver || "waived"]);
    if (gpu === 2) warnings.push(["Untested: ", "has not run on a GPU yet"]);
    find("warnings").replaceChildren(...warnings.map(([head, text]) => {
      const made = element("p", "", { className: "warning" });
      made.append(element("b", head), text);
      return made;
    }));
  }

  async function detail(wheel, [sass, ptx]) {
    const list = find("wheel");
    const newer = ptx.length ? `; newer ones by PTX ${ptx.join(", ")}` : "";
    const rows = [["File", wheel.name], ["GPU architectures", (sass.join(", ") || "none") + newer]];
    define(list, rows);
    list.dataset.row = wheel.row;
    let known;
    try {
      known = data.details ? embedded(wheel.row) : await fetched(wheel.name);
    } catch {
      const channel = `whl/${data.axes[CUDA][choice[CUDA]]}-torch${data.axes[TORCH][choice[TORCH]]}/nvdiffrast/index.html`;
      known = { elsewhere: element("a", "see the list of the channel", { href: channel }) };
    }
    // The user may have chosen another wheel while the details of this one were loading.
    if (list.dataset.row !== String(wheel.row)) return;
    define(list, rows.concat(known.elsewhere ? [["Size, sha256", known.elsewhere]] : evidence(wheel, known, rows)));
  }

  function evidence(wheel, { size, sha256 }, rows) {
    rows[0][1] = element("a", wheel.name, { href: `files/${sha256}/${encodeURIComponent(wheel.name)}` });
    const records = document.createElement("span");
    records.append(element("a", "audit", { href: `records/${sha256}.audit.json` }));
    const second = [["gpu", "GPU run"], ["waiver", "waiver"]][wheel.gpu];
    if (second) records.append(" · ", element("a", second[1], { href: `records/${sha256}.${second[0]}.json` }));
    if (data.stated[wheel.row] === "1") {
      records.append(" · ", element("a", "SBOM", { href: `records/${sha256}.cdx.json` }));
      records.append(" · ", element("a", "provenance", { href: `records/${sha256}.provenance.json` }));
    }
    const megabytes = size >= 1e5 ? `${(size / 1e6).toFixed(1)} MB` : `${(size / 1e3).toFixed(1)} kB`;
    return [["Size", megabytes], ["sha256", element("code", sha256)], ["Records", records]];
  }

  function define(list, rows) {
    list.replaceChildren(...rows.flatMap(([term, value]) => {
      const description = document.createElement("dd");
      description.append(value);
      return [element("dt", term), description];
    }));
  }

  function embedded(row) {
    const bytes = atob(data.details.sha256).slice(row * 32, row * 32 + 32);
    const sha256 = Array.from(bytes, (sign) => sign.charCodeAt(0).toString(16).padStart(2, "0")).join("");
    return { size: data.details.sizes[row], sha256 };
  }

  const answers = new Map();
  async function fetched(name) {
    const address = `whl/${data.axes[CUDA][choice[CUDA]]}-torch${data.axes[TORCH][choice[TORCH]]}/nvdiffrast/index.json`;
    if (!answers.has(address)) answers.set(address, fetch(address).then((answer) => answer.json()));
    const file = (await answers.get(address)).files.find((one) => one.filename === name);
    return { size: file.size, sha256: file.hashes.sha256 };
  }

  async function copy(button) {
    const source = find(button.dataset.copies);
    getSelection().selectAllChildren(source);
    try {
      await navigator.clipboard.writeText(source.textContent);
    } catch {
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    find("copied").textContent = `Copied for ${button.dataset.copies}`;
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  }

  function readAddress() {
    const asked = new URLSearchParams(location.hash.slice(1));
    wish = AXES.map((axis, i) => {
      const index = data.axes[i].indexOf(asked.get(axis));
      return index < 0 ? undefined : index;
    });
    const windows = data.axes[SYSTEM].indexOf("win_amd64");
    if (wish[SYSTEM] === undefined && navigator.platform.startsWith("Win") && windows >= 0) {
      if (below([windows]).some((place) => place.kind <= YANKED)) wish[SYSTEM] = windows;
    }
  }

  if (!data.wheels.length) return;
  for (const [axis, group] of inputs.entries()) {
    group.forEach((input, index) => input.addEventListener("change", () => { wish[axis] = index; update(); }));
  }
  for (const button of document.querySelectorAll("button[data-copies]")) button.addEventListener("click", () => copy(button));
  addEventListener("hashchange", () => { readAddress(); update(); });
  readAddress();
  update();
  find("chooser").hidden = false;
})();
