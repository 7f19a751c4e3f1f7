
for (const form of document.forms) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const output = form.querySelector("output");
    output.textContent = "...";
    const start = performance.now();
    try {
      const response = await fetch(form.getAttribute("action"), {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: form.elements.body.value,
      });
      let text = await response.text();
      try {
        text = JSON.stringify(JSON.parse(text), null, 2);
      } catch {
        // Not JSON: shown as it is.
      }
      const time = Math.round(performance.now() - start);
      output.textContent = `${response.status} in ${time} ms\n${text}`;
    } catch (error) {
      output.textContent = String(error);
    }
  });
}
