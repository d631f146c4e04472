import { defaultClientConditions, defineConfig, type Plugin } from "vite";
import { VitePWA } from "vite-plugin-pwa";
import { siteFiles } from "./build/site";
import isolated from "./headers.json";

const SOURCES = { models: "models", selfTests: "self-test", results: "../docs/results.json" };

/** Adds models, runtimes, catalogue and README to the page, built or served for development. */
function site(): Plugin {
  return {
    name: "mobilediff-site",
    generateBundle() {
      for (const [fileName, source] of siteFiles(SOURCES)) this.emitFile({ type: "asset", fileName, source });
    },
    configureServer(server) {
      const files = siteFiles(SOURCES);
      server.middlewares.use((request, response, next) => {
        const content = files.get(new URL(request.url ?? "", "http://localhost").pathname.slice(1));
        if (content === undefined) next();
        else response.end(content);
      });
    },
  };
}

export default defineConfig({
  base: "./",
  // Take the scripts of onnxruntime-web that leave it to the page where its WebAssembly lies.
  resolve: { conditions: ["onnxruntime-web-use-extern-wasm", ...defaultClientConditions] },
  build: { target: "es2022", assetsInlineLimit: 0 },
  worker: { format: "es" },
  server: { headers: isolated },
  preview: { headers: isolated },
  plugins: [
    site(),
    VitePWA({
      registerType: "autoUpdate",
      injectRegister: "script-defer",
      manifest: {
        name: "mobilediff on your device",
        short_name: "mobilediff",
        description: "Text to picture in one step, in your own browser.",
        start_url: "./",
        scope: "./",
        display: "standalone",
        background_color: "#14161b",
        theme_color: "#14161b",
        icons: [
          { src: "icon-192.png", sizes: "192x192", type: "image/png" },
          { src: "icon-512.png", sizes: "512x512", type: "image/png" },
          { src: "icon-maskable-512.png", sizes: "512x512", type: "image/png", purpose: "maskable" },
        ],
      },
      workbox: {
        // The page keeps the large files itself, once their content is found to be right.
        globPatterns: ["**/*.{html,js,mjs,css,json,png}"],
        inlineWorkboxRuntime: true,
        navigateFallback: null,
        ignoreURLParametersMatching: [/.*/],
      },
    }),
  ],
});
