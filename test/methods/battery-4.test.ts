import { battery } from './battery.js';

battery(3, 8);
