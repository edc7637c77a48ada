// What the pages do beyond htmx: pause the updates, hold rows still under the pointer, copy a line.
"use strict";

(() => {
  const PAUSED = "fastq-paused";
  const isPaused = () => sessionStorage.getItem(PAUSED) === "1";

  // A region with data-live is replaced when something changes. It stays as it is while updates are paused, while the
  // pointer or the focus is in it, or while text in it is selected.
  const isHeld = (region) => {
    if (isPaused()) return true;
    if (!region.hasAttribute("data-still")) return false;
    const selection = document.getSelection();
    const isSelected = selection && !selection.isCollapsed && region.contains(selection.anchorNode);
    return region.matches(":hover") || region.contains(document.activeElement) || isSelected;
  };

  document.addEventListener("htmx:beforeRequest", (event) => {
    const region = event.target.closest("[data-live]");
    if (region && region === event.target && isHeld(region)) {
      event.preventDefault();
      region.setAttribute("data-behind", "");
    }
  });

  const release = (region) => {
    if (region.hasAttribute("data-behind") && !isHeld(region)) {
      region.removeAttribute("data-behind");
      htmx.trigger(region, "catch-up");
    }
  };
  document.addEventListener("pointerout", (event) => {
    const region = event.target.closest("[data-still]");
    if (region && !region.contains(event.relatedTarget)) setTimeout(() => release(region), 0);
  });
  document.addEventListener("focusout", (event) => {
    const region = event.target.closest("[data-still]");
    if (region) setTimeout(() => release(region), 0);
  });

  const showPaused = () => {
    for (const button of document.querySelectorAll("[data-pause]")) {
      button.textContent = isPaused() ? "Go on updating" : "Pause updates";
      button.setAttribute("aria-pressed", String(isPaused()));
    }
    for (const sign of document.querySelectorAll(".live")) {
      sign.classList.toggle("paused", isPaused());
      sign.textContent = isPaused() ? "paused" : "live";
    }
  };

  document.addEventListener("click", async (event) => {
    const pause = event.target.closest("[data-pause]");
    if (pause) {
      sessionStorage.setItem(PAUSED, isPaused() ? "0" : "1");
      showPaused();
      for (const region of document.querySelectorAll("[data-live]")) release(region);
      return;
    }
    const copy = event.target.closest("[data-copy]");
    if (copy) {
      const source = document.getElementById(copy.dataset.copy);
      const label = copy.textContent;
      try {
        await navigator.clipboard.writeText(source.textContent);
        copy.textContent = "Copied";
      } catch {
        document.getSelection().selectAllChildren(source); // over plain HTTP there is no clipboard
        copy.textContent = "Press Ctrl+C";
      }
      setTimeout(() => { copy.textContent = label; }, 1500);
    }
    const all = event.target.closest("[data-all]");
    if (all) {
      for (const box of document.querySelectorAll(`input[name="${all.dataset.all}"]`)) box.checked = all.checked;
    }
  });

  document.addEventListener("htmx:sseError", () => {
    for (const sign of document.querySelectorAll(".live:not(.paused)")) {
      sign.classList.add("lost");
      sign.textContent = "no connection";
    }
    // Where the session has ended, the answer leads to the login.
    for (const region of document.querySelectorAll("[sse-connect] [data-live]")) htmx.trigger(region, "catch-up");
  });
  document.addEventListener("htmx:sseOpen", () => {
    for (const sign of document.querySelectorAll(".live")) sign.classList.remove("lost");
    showPaused();
  });
  document.addEventListener("DOMContentLoaded", () => {
    for (const button of document.querySelectorAll("[data-pause], [data-copy]")) button.hidden = false;
    showPaused();
    for (const box of document.querySelectorAll("[data-all]")) box.closest("label").hidden = false;
    if (matchMedia("(max-width: 720px)").matches) {
      for (const filter of document.querySelectorAll("details[data-wide]")) filter.open = false;
    }
    document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  });
})();
