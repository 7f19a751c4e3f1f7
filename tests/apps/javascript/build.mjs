import { build } from 'esbuild';
import { SpinEsbuildPlugin } from "@spinframework/build-tools/plugins/esbuild/index.js";
const spinPlugin = await SpinEsbuildPlugin();
await build({ entryPoints: ['./src/index.js'], outfile: './build/bundle.js', bundle: true, format: 'esm', platform: 'node', sourcemap: false, minify: false, plugins: [spinPlugin], logLevel: 'error' });
