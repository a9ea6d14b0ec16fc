/** An object with fields that are computed on first read: values that cost nodes are built only for who reads them. */
export function lazily(fields: object, getters: Readonly<Record<string, () => unknown>>): object {
  const view = { ...fields };
  for (const [name, get] of Object.entries(getters)) {
    let known: { readonly value: unknown } | undefined;
    Object.defineProperty(view, name, {
      enumerable: true,
      get: () => {
        known ??= { value: get() };
        return known.value;
      },
    });
  }
  return view;
}
