import { battery } from './battery.js';

battery(6, 8);
