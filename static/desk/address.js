// The address names the record in front and the order of the queue, so that a reload shows them again. It takes the
// place of the one before: "back" leads to where the person came from, and what changes the language leads back here.

// Write `values` into the address; an empty one is taken out.
export function follow(values) {
  const address = new URL(location.href);
  for (const [name, value] of Object.entries(values)) {
    if (value) address.searchParams.set(name, value);
    else address.searchParams.delete(name);
  }
  if (address.href !== location.href) history.replaceState(null, "", address);
  for (const field of document.querySelectorAll('.top input[name="next"]')) field.value = address.pathname + address.search;
}
