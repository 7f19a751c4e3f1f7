// Each global counts the requests of its instance: with a fresh instance for each request it stays 1.
import { AutoRouter } from "itty-router";
import { Store } from "fermyon:spin/key-value@2.0.0";

let requests = 0;
const encoder = new TextEncoder();
const decoder = new TextDecoder();
const router = AutoRouter();

router
  .get("/hello", () => new Response(`Hello from JavaScript! ${++requests}`))
  .post("/echo", async (request) => new Response(await request.arrayBuffer()))
  .get("/stream", () => new Response(new ReadableStream({
    start(controller) {
      for (let part = 0; part < 5; part++) controller.enqueue(encoder.encode(`part ${part}\n`));
      controller.close();
    },
  })))
  .get("/self", async () => {
    const response = await fetch("http://self/hello");
    return new Response(`${response.status} ${await response.text()}`);
  })
  .put("/keys/:key", async ({ key }, request) => {
    Store.open("default").set(key, new Uint8Array(await request.arrayBuffer()));
    return new Response(null, { status: 204 });
  })
  .get("/keys/:key", ({ key }) => {
    const value = Store.open("default").get(key);
    return value ? new Response(decoder.decode(value)) : new Response("no such key", { status: 404 });
  });

addEventListener("fetch", (event) => event.respondWith(router.fetch(event.request, event.request)));
