"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);
  const { steps, colours, frames } = data;
  const last = colours.delta.length;
  const nodes = all("g.nodes").map((group) => ({ group, neurons: all(".neuron", group) }));
  const edges = all("g.edges").map((group) => ({ group, paths: all("path", group) }));
  const weights = edges.map(({ paths }) => paths.map((path) => [path.classList.contains("neg") ? -1 : 1, path.style.getPropertyValue("--v")]));
  const board = one(".board"), said = one("#said");
  let now = data.start, example = 0, pinned = null;

  const paint = (element, share) => {
    element.style.setProperty("--v", Math.abs(share));
    element.classList.toggle("neg", share < 0);
    element.classList.toggle("pos", share >= 0);
    element.classList.toggle("strong", Math.abs(share) > 0.55);
  };

  // What each layer shows at a step: its activation, its error, or nothing yet.
  const shownOf = (layer, step) => {
    if (step.phase === "input") return layer === 0 ? "a" : "";
    if (step.phase === "forward") return layer <= step.layer ? "a" : "";
    if (step.phase === "backward") return layer >= step.layer ? "delta" : "a";
    return step.phase === "loss" ? "a" : layer === 0 ? "a" : "delta";
  };
  const carriedBy = (layer, step) => {
    if (step.phase === "update") return colours.gradient[layer - 1];
    if (step.phase === "backward" && layer >= step.layer) return colours.blame[layer - 1][example];
    const reached = step.phase === "loss" || step.phase === "backward" || (step.phase === "forward" && layer <= step.layer);
    return reached ? colours.signal[layer - 1][example] : null;
  };

  const draw = () => {
    const step = steps[now];
    board.className = `board ${step.phase}`;
    nodes.forEach(({ group, neurons }, layer) => {
      const shown = shownOf(layer, step);
      const from = shown === "delta" ? colours.delta[layer - 1] : colours.a[layer];
      one(".head", group).textContent = layer === 0 ? "input a[0]" : `${shown === "delta" ? "δ" : "a"}[${layer}]`;
      group.classList.toggle("empty", !shown);
      group.classList.toggle("active", step.layer === layer && step.phase !== "loss");
      neurons.forEach((neuron, i) => {
        paint(neuron, shown ? from.share[example][i] : 0);
        one("text", neuron).textContent = shown ? from.text[example][i] : "";
        const label = colours.labels[example][layer][i] + (shown === "delta" ? `, δ = ${from.text[example][i]}` : "");
        neuron.setAttribute("aria-label", label);
        one("title", neuron).textContent = label;
      });
    });
    edges.forEach(({ group, paths }, index) => {
      const carried = carriedBy(index + 1, step);
      const busy = step.phase === "update" || step.layer === index + 1;
      group.classList.toggle("quiet", step.phase !== "loss" && !busy);
      paths.forEach((path, i) => paint(path, carried ? carried[i] : weights[index][i][0] * weights[index][i][1]));
    });
    all(".target").forEach((text, i) => { text.textContent = colours.y[example][i]; });
    all("[data-example]").forEach((part) => { part.hidden = Number(part.dataset.example) !== example; });
    all(".step").forEach((section) => section.classList.toggle("current", section.id === step.id));
    one("#where b").textContent = step.title;
    one("#where span").textContent = `step ${now + 1} of ${steps.length}`;
    one("#back").disabled = now === 0;
    one("#next").disabled = now === steps.length - 1;
    one("#progress").value = now / (steps.length - 1);
    tell();
  };

  // The sums are in the page already; the panel repeats the one that is asked for.
  const tell = () => {
    const step = steps[now];
    all(".chosen").forEach((element) => element.classList.remove("chosen"));
    const heading = document.createElement("h3");
    said.replaceChildren(heading);
    if (!pinned) {
      const said_ = { input: "the numbers", forward: "each neuron sums and activates", loss: colours.loss[example], backward: "the error comes back", update: "each weight by its gradient" };
      heading.textContent = `${step.title}: ${said_[step.phase]}`;
      const hint = document.createElement("p");
      hint.className = "hint";
      hint.textContent = {
        input: "Go on with → or the arrow keys.",
        forward: `Lines: what each connection carries, weight times activation. Hover or focus a neuron of layer ${step.layer} to see its sum.`,
        loss: "Output against target.",
        backward: `Nodes: δ. Lines: what each connection carries back, weight times δ. Hover or focus a neuron of layer ${step.layer} to see its sum.`,
        update: "Lines: ∂J/∂W, the part that η times is taken off each weight.",
      }[step.phase];
      said.append(hint);
      return;
    }
    const { layer, neuron } = pinned.dataset;
    pinned.classList.add("chosen");
    heading.textContent = Number(layer) ? `Layer ${layer}, neuron ${neuron}` : "Input";
    const backward = shownOf(Number(layer), step) === "delta";
    const sums = Number(layer) ? [`f-${layer}-${neuron}-${example}`, ...(backward ? [`b-${layer}-${neuron}-${example}`] : [])] : [];
    sums.map((id) => document.getElementById(id)).filter(Boolean).forEach((sum) => {
      const copy = sum.cloneNode(true);
      copy.removeAttribute("id");
      said.append(copy);
      sum.classList.add("chosen");
    });
    if (!sums.length) {
      const line = document.createElement("p");
      line.className = "sum";
      line.textContent = colours.labels[example][layer][neuron - 1];
      said.append(line);
    }
  };

  const go = (to, scrolls = true) => {
    const next = Math.max(0, Math.min(steps.length - 1, to));
    if (next === now) return;
    now = next;
    const section = document.getElementById(steps[now].id);
    section.open = true;
    draw();
    if (scrolls && getComputedStyle(one(".stage")).gridTemplateColumns.split(" ").length > 1) section.scrollIntoView({ block: "start" });
  };

  // What scrolls by itself can be reached by keyboard; what does not is no stop on the way.
  const reach = () => all(".scroll, .formula").forEach((box) => {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  });
  addEventListener("resize", reach);
  reach();

  one(".controls").hidden = false;
  one("#back").addEventListener("click", () => go(now - 1));
  one("#next").addEventListener("click", () => go(now + 1));
  all("input[name=example]").forEach((radio) => radio.addEventListener("change", () => { example = Number(radio.value); draw(); }));
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input, select, textarea") || event.altKey || event.ctrlKey || event.metaKey) return;
    const to = { ArrowRight: now + 1, ArrowLeft: now - 1, Home: 0, End: steps.length - 1 }[event.key];
    if (to === undefined || (event.target.matches(".scroll, .formula") && event.target.scrollWidth > event.target.clientWidth)) return;
    event.preventDefault();
    go(to);
  });
  all(".neuron").forEach((neuron) => {
    const choose = () => { pinned = neuron; tell(); };
    neuron.addEventListener("mouseenter", choose);
    neuron.addEventListener("focus", choose);
    neuron.addEventListener("click", choose);
    neuron.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(); } });
    neuron.addEventListener("blur", () => { pinned = null; tell(); });
    neuron.addEventListener("mouseleave", () => { if (document.activeElement !== neuron) { pinned = document.activeElement.matches(".neuron") ? document.activeElement : null; tell(); } });
  });

  const slider = one("#time");
  if (slider) {
    const show = () => {
      const frame = frames[slider.value];
      const text = `step ${frame.step}, loss ${frame.loss}`;
      one("#when").textContent = text;
      slider.setAttribute("aria-valuetext", text);
      const mark = one("#mark");
      mark.setAttribute("cx", frame.x);
      mark.setAttribute("cy", frame.y);
      if (frame.surface !== null) one("#surface").innerHTML = frame.surface;
    };
    let timer = 0;
    const play = one("#play");
    const stop = () => { clearInterval(timer); timer = 0; play.textContent = "▶"; play.setAttribute("aria-label", "Play the steps"); };
    play.addEventListener("click", () => {
      if (timer) { stop(); return; }
      if (Number(slider.value) === frames.length - 1) slider.value = 0;
      play.textContent = "❚❚";
      play.setAttribute("aria-label", "Stop");
      show();
      timer = setInterval(() => {
        slider.value = Number(slider.value) + 1;
        show();
        if (Number(slider.value) === frames.length - 1) stop();
      }, 160);
    });
    slider.addEventListener("input", () => { if (timer) stop(); show(); });
    one(".slider").hidden = false;
    show();
  }
  draw();
})();
