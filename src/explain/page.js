// Pointing at a node lights its kernel in both graphs; a click keeps it and shows what is said of the kernel.
for (const section of document.querySelectorAll("section")) {
  const nodes = [...section.querySelectorAll("g[data-kernels]")];
  const of = (element) => element.dataset.kernels.split(" ").filter((k) => k !== "");
  let kept = null;
  const light = (kernels) => {
    for (const node of nodes) {
      const mine = kernels.length > 0 && of(node).some((k) => kernels.includes(k));
      node.classList.toggle("lit", mine);
      node.classList.toggle("dim", kernels.length > 0 && !mine);
    }
    for (const told of section.querySelectorAll(".kernel")) {
      told.classList.toggle("lit", kernels.includes(told.dataset.kernel));
    }
  };
  const keep = (kernels) => {
    kept = kernels.length > 0 ? kernels : null;
    light(kept ?? []);
    if (kept) section.querySelector(`.kernel[data-kernel="${kept[0]}"]`)?.scrollIntoView({ block: "nearest" });
  };
  for (const node of nodes) {
    node.addEventListener("mouseenter", () => { if (!kept) light(of(node)); });
    node.addEventListener("mouseleave", () => { if (!kept) light([]); });
    node.addEventListener("click", (event) => { event.stopPropagation(); keep(of(node)); });
  }
  for (const told of section.querySelectorAll(".kernel")) {
    told.addEventListener("click", (event) => { event.stopPropagation(); keep([told.dataset.kernel]); });
  }
  section.addEventListener("click", () => keep([]));
}
