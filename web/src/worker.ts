/** Keeps the engine off the thread of the page. */

import * as Comlink from "comlink";
import { Engine } from "./engine";

Comlink.expose(Engine);
