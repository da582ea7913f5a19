"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const findAll = (selector, root = document) => [...root.querySelectorAll(selector)];
  const find = (selector, root = document) => root.querySelector(selector);
  const { steps, colours, frames } = data;
  const nodes = findAll("g.nodes").map((group) => ({ group, neurons: findAll(".neuron", group) }));
  const edges = findAll("g.edges").map((group) => ({ group, paths: findAll("path", group) }));
  const weights = edges.map(({ paths }) => paths.map((path) => [path.classList.contains("neg") ? -1 : 1, path.style.getPropertyValue("--v")]));
  const board = find(".board"), panel = find("#panel");
  let current = data.start, example = 0, pinned = null;

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
    if (step.phase === "backward" && layer >= step.layer) return colours.backward[layer - 1][example];
    const reached = step.phase === "loss" || step.phase === "backward" || (step.phase === "forward" && layer <= step.layer);
    return reached ? colours.forward[layer - 1][example] : null;
  };

  const draw = () => {
    const step = steps[current];
    board.className = `board ${step.phase}`;
    nodes.forEach(({ group, neurons }, layer) => {
      const shown = shownOf(layer, step);
      const from = shown === "delta" ? colours.delta[layer - 1] : colours.a[layer];
      find(".head", group).textContent = layer === 0 ? "input a[0]" : `${shown === "delta" ? "δ" : "a"}[${layer}]`;
      group.classList.toggle("empty", !shown);
      group.classList.toggle("active", step.layer === layer && step.phase !== "loss");
      neurons.forEach((neuron, i) => {
        paint(neuron, shown ? from.share[example][i] : 0);
        find("text", neuron).textContent = shown ? from.text[example][i] : "";
        const label = colours.labels[example][layer][i] + (shown === "delta" ? `, δ = ${from.text[example][i]}` : "");
        neuron.setAttribute("aria-label", label);
        find("title", neuron).textContent = label;
      });
    });
    edges.forEach(({ group, paths }, index) => {
      const carried = carriedBy(index + 1, step);
      const isActive = step.phase === "update" || step.layer === index + 1;
      group.classList.toggle("quiet", step.phase !== "loss" && !isActive);
      paths.forEach((path, i) => paint(path, carried ? carried[i] : weights[index][i][0] * weights[index][i][1]));
    });
    findAll(".target").forEach((text, i) => { text.textContent = colours.y[example][i]; });
    findAll("[data-example]").forEach((part) => { part.hidden = Number(part.dataset.example) !== example; });
    findAll(".step").forEach((section) => section.classList.toggle("current", section.id === step.id));
    find("#where b").textContent = step.title;
    find("#where span").textContent = `step ${current + 1} of ${steps.length}`;
    find("#back").disabled = current === 0;
    find("#next").disabled = current === steps.length - 1;
    find("#progress").value = current / (steps.length - 1);
    showPanel();
  };

  // The page already contains every sum. The panel repeats those of the chosen neuron.
  const showPanel = () => {
    const step = steps[current];
    findAll(".chosen").forEach((element) => element.classList.remove("chosen"));
    const heading = document.createElement("h3");
    panel.replaceChildren(heading);
    if (!pinned) {
      const summary = { input: "the numbers", forward: "each neuron adds up its inputs", loss: colours.loss[example], backward: "the error is passed back", update: "every weight moves" };
      heading.textContent = `${step.title}: ${summary[step.phase]}`;
      const hint = document.createElement("p");
      hint.className = "hint";
      hint.textContent = {
        input: "Press → for the next step.",
        forward: `Lines: what each connection carries forward, weight times activation. Point at a neuron of layer ${step.layer}, or focus it, to see its sum.`,
        loss: "Compare the output with the target.",
        backward: `Nodes: δ. Lines: what each connection carries back, weight times δ. Point at a neuron of layer ${step.layer}, or focus it, to see its sum.`,
        update: "Lines: ∂J/∂W. Gradient descent subtracts η times this number from each weight.",
      }[step.phase];
      panel.append(hint);
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
      panel.append(copy);
      sum.classList.add("chosen");
    });
    if (!sums.length) {
      const line = document.createElement("p");
      line.className = "sum";
      line.textContent = colours.labels[example][layer][neuron - 1];
      panel.append(line);
    }
  };

  const goTo = (to) => {
    const next = Math.max(0, Math.min(steps.length - 1, to));
    if (next === current) return;
    current = next;
    const section = document.getElementById(steps[current].id);
    section.open = true;
    draw();
    if (getComputedStyle(find(".stage")).gridTemplateColumns.split(" ").length > 1) section.scrollIntoView({ block: "start" });
  };

  // A box that scrolls can be reached by keyboard. One that does not scroll is skipped.
  const makeFocusable = () => findAll(".scroll, .formula").forEach((box) => {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  });
  addEventListener("resize", makeFocusable);
  makeFocusable();

  find(".controls").hidden = false;
  find("#back").addEventListener("click", () => goTo(current - 1));
  find("#next").addEventListener("click", () => goTo(current + 1));
  findAll("input[name=example]").forEach((radio) => radio.addEventListener("change", () => { example = Number(radio.value); draw(); }));
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input, select, textarea") || event.altKey || event.ctrlKey || event.metaKey) return;
    const to = { ArrowRight: current + 1, ArrowLeft: current - 1, Home: 0, End: steps.length - 1 }[event.key];
    if (to === undefined || (event.target.matches(".scroll, .formula") && event.target.scrollWidth > event.target.clientWidth)) return;
    event.preventDefault();
    goTo(to);
  });
  findAll(".neuron").forEach((neuron) => {
    const pin = () => { pinned = neuron; showPanel(); };
    neuron.addEventListener("mouseenter", pin);
    neuron.addEventListener("focus", pin);
    neuron.addEventListener("click", pin);
    neuron.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pin(); } });
    neuron.addEventListener("blur", () => { pinned = null; showPanel(); });
    neuron.addEventListener("mouseleave", () => { if (document.activeElement !== neuron) { pinned = document.activeElement.matches(".neuron") ? document.activeElement : null; showPanel(); } });
  });

  const slider = find("#time");
  if (slider) {
    const show = () => {
      const frame = frames[slider.value];
      const text = `step ${frame.step}, loss ${frame.loss}`;
      find("#when").textContent = text;
      slider.setAttribute("aria-valuetext", text);
      const mark = find("#mark");
      mark.setAttribute("cx", frame.x);
      mark.setAttribute("cy", frame.y);
      if (frame.surface !== null) find("#surface").innerHTML = frame.surface;
    };
    let timer = 0;
    const play = find("#play");
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
    find(".slider").hidden = false;
    show();
  }
  draw();
})();
