// The filters of the ledger: report, source, verdict. Rows that do not match are hidden.
document.addEventListener("DOMContentLoaded", () => {
  const form = document.querySelector(".ledger-filter");
  if (!form) return;
  const rows = [...document.querySelectorAll("tr[data-verdicts]")];
  const select = (name) => form.querySelector(`[data-filter="${name}"]`);
  const matches = (row) => {
    const report = select("report").value, source = select("source").value;
    const verdict = select("verdict").value;
    if (report && row.dataset.report !== report) return false;
    const cells = row.dataset.verdicts.split("|").map((cell) => cell.split("="));
    if (verdict.startsWith("no evidence")) return cells.every(([, says]) => says === "not tested");
    return cells.some(([of, says]) =>
      (!source || of === source) && (verdict ? says === verdict : !source || says !== "not tested"));
  };
  const filter = () => {
    for (const row of rows) row.hidden = !matches(row);
    const left = rows.filter((row) => !row.hidden).length;
    const counted = `${left} of ${rows.length} claims`;
    form.querySelector("output").textContent = left ? counted : `Nothing matches: ${counted}`;
  };
  form.hidden = false;
  form.addEventListener("change", filter);
  const open = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (target?.hidden) {
      form.reset();
      filter();
      target.scrollIntoView();
    }
    const details = target?.matches("details") ? target : target?.querySelector("details");
    if (details) details.open = true;
  };
  window.addEventListener("hashchange", open);
  open();
  filter();
});
