"use strict";
document.getElementById("save").addEventListener("click", () => {
  const page = new Blob([document.querySelector("iframe").srcdoc], { type: "text/html" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(page);
  link.download = "faces.html";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
});
