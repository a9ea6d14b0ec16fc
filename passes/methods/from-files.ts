/** Methods that nobody inserts: what folders of PEFT hold is read as them. */
import bdLora from './bd-lora.js';
import beft from './beft.js';
import boft from './boft.js';
import c3a from './c3a.js';
import type { Method } from './contract/method.js';
import deft from './deft.js';
import delora from './delora.js';
import fourierft from './fourierft.js';
import frod from './frod.js';
import glora from './glora.js';
import gralora from './gralora.js';
import hira from './hira.js';
import hra from './hra.js';
import kasa from './kasa.js';
import miss from './miss.js';
import oft from './oft.js';
import osf from './osf.js';
import peanut from './peanut.js';
import pvera from './pvera.js';
import qaLora from './qa-lora.js';
import randlora from './randlora.js';
import residualLora from './residual-lora.js';
import road from './road.js';
import shira from './shira.js';
import supertuning from './supertuning.js';
import tinylora from './tinylora.js';
import trainableTokens from './trainable-tokens.js';
import unilora from './unilora.js';
import vbLoraCompact from './vb-lora-compact.js';
import waveft from './waveft.js';

export const FILE_METHODS: readonly Method[] = [
  vbLoraCompact,
  trainableTokens,
  residualLora,
  kasa,
  bdLora,
  qaLora,
  oft,
  boft,
  hra,
  miss,
  shira,
  c3a,
  randlora,
  road,
  beft,
  deft,
  delora,
  fourierft,
  glora,
  gralora,
  hira,
  osf,
  peanut,
  pvera,
  supertuning,
  unilora,
  waveft,
  tinylora,
  frod,
];
