// The page of the server: what a notebook gives an anywidget module, over fetch and the address of the page.
import explorer from "./explore.js";

const listeners = [];
const model = {
  get: () => decodeURIComponent(location.hash.slice(1)),
  set: (_, value) => history.replaceState(null, "", "#" + encodeURIComponent(value)),
  save_changes: () => {},
  on: (_, listener) => listeners.push(listener),
  send: async ({ id, request }) => {
    let answer;
    try {
      const body = JSON.stringify(request);
      const reply = await fetch("api", { method: "POST", headers: { "Content-Type": "application/json" }, body });
      answer = reply.ok ? await reply.json() : { error: await reply.text() };
    } catch {
      answer = { error: "the explorer does not answer: was its command ended? Start it again and open its new link" };
    }
    for (const listener of listeners) listener({ id, answer });
  },
};
explorer.render({ model, el: document.getElementById("explorer") });
