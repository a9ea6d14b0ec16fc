/**
 * What an object was decoded from. Kept beside the graph, keyed by object, so that saving can copy untouched messages
 * byte for byte, and changed ones can keep the fields that the graph does not model.
 */
import type { Message } from './wire.js';

const origins = new WeakMap<object, Message>();

/** Remembers the encoded form of a Model, Graph, Node, LocalFunction, Attribute or Tensor. */
export function setOrigin<T extends object>(object: T, message: Message): T {
  origins.set(object, message);
  return object;
}

export function originOf(object: object): Message | undefined {
  return origins.get(object);
}

/** Makes a copy stand for the same encoded form as the object it was copied from. Used by `cloneModel`. */
export function inheritOrigin<T extends object>(from: object, to: T): T {
  const message = origins.get(from);
  if (message !== undefined) origins.set(to, message);
  return to;
}
