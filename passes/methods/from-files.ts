/** Methods that nobody inserts: what folders of PEFT hold is read as them. */
import boft from './boft.js';
import c3a from './c3a.js';
import type { Method } from './contract/method.js';
import hra from './hra.js';
import miss from './miss.js';
import oft from './oft.js';
import randlora from './randlora.js';
import residualLora from './residual-lora.js';
import road from './road.js';
import shira from './shira.js';
import trainableTokens from './trainable-tokens.js';
import vbLoraCompact from './vb-lora-compact.js';

export const FILE_METHODS: readonly Method[] = [
  vbLoraCompact,
  trainableTokens,
  residualLora,
  oft,
  boft,
  hra,
  miss,
  shira,
  c3a,
  randlora,
  road,
];
