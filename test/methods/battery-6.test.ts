import { battery } from './battery.js';

battery(5, 8);
