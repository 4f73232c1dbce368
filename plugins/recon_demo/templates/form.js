"use strict";
// The page works without this: it adds a preview, dropping anywhere on the page, and words before an upload is in vain.
(() => {
  const form = document.querySelector("form"), status = document.getElementById("status");
  const photo = document.getElementById("photo"), camera = document.getElementById("camera");
  const preview = document.getElementById("preview"), button = form.querySelector("button");
  const limit = Number(form.dataset.limit) - 2000; // the form itself takes some bytes

  const chosen = () => photo.files[0] || camera.files[0];
  const complaint = () => {
    const file = chosen();
    if (!file) return "Choose a photo first.";
    if (!file.size) return "The file is empty.";
    return file.size > limit ? `The file is larger than ${form.dataset.words}. Choose a smaller one.` : "";
  };

  const show = () => {
    URL.revokeObjectURL(preview.src);
    const file = chosen();
    preview.hidden = true; // until it is there: what browsers cannot show moves nothing
    if (file) preview.src = URL.createObjectURL(file); else preview.removeAttribute("src");
    status.textContent = file ? complaint() : "";
  };
  preview.addEventListener("load", () => { preview.hidden = false; });
  for (const [input, other] of [[photo, camera], [camera, photo]]) {
    input.addEventListener("change", () => { if (input.files.length) other.value = ""; show(); });
  }

  let depth = 0; // of elements that a dragged file has entered
  const dropping = (change) => {
    depth = change ? depth + change : 0;
    form.classList.toggle("dropping", depth > 0);
  };
  const holdsFile = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
  document.addEventListener("dragenter", (event) => { if (holdsFile(event)) dropping(1); });
  document.addEventListener("dragleave", (event) => { if (holdsFile(event)) dropping(-1); });
  document.addEventListener("dragover", (event) => { if (holdsFile(event)) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    if (!holdsFile(event)) return;
    event.preventDefault();
    dropping(0);
    if (!event.dataTransfer.files.length) return;
    const one = new DataTransfer(); // of several files, the first counts
    one.items.add(event.dataTransfer.files[0]);
    photo.files = one.files;
    camera.value = "";
    show();
    button.focus();
  });

  form.addEventListener("submit", (event) => {
    const words = complaint();
    if (words) {
      event.preventDefault();
      status.textContent = words;
      (chosen() ? button : photo).focus();
      return;
    }
    button.disabled = true;
    status.textContent = "Sent. Working on it …";
  });
  window.addEventListener("pageshow", () => { // also when coming back to this page
    button.disabled = false;
    show();
  });
})();
