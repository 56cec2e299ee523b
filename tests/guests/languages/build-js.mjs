// node build-js.mjs SOURCE WIT OUTPUT, beside node_modules.
import { componentize } from '@bytecodealliance/componentize-js';
import { readFile, writeFile } from 'node:fs/promises';

const [source, witPath, output] = process.argv.slice(2);
const options = { witPath, worldName: 'program', sourceName: 'app.js' };
const { component } = await componentize(await readFile(source, 'utf8'), options);
await writeFile(output, component);
