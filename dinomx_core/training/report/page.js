// The step and the number under the pointer, of the points that a curve has.
const curves = JSON.parse(document.getElementById('curves').textContent);
for (const figure of document.querySelectorAll('.chart')) {
  const [steps, values] = curves.figures[figure.dataset.figure];
  const svg = figure.querySelector('svg'), now = figure.querySelector('.now'), line = svg.querySelector('.at');
  const last = now.innerHTML, { wide, left, right } = curves;
  svg.addEventListener('pointermove', event => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * wide;
    const step = (x - left) / (wide - right - left) * curves.steps;
    let at = 0;
    steps.forEach((other, n) => { if (Math.abs(other - step) < Math.abs(steps[at] - step)) at = n; });
    const place = left + steps[at] / curves.steps * (wide - right - left);
    line.setAttribute('x1', place);
    line.setAttribute('x2', place);
    now.textContent = `${Number(values[at].toPrecision(5))}${now.dataset.unit} `;
    now.append(Object.assign(document.createElement('i'), { textContent: `at step ${steps[at]}` }));
  });
  svg.addEventListener('pointerleave', () => {
    line.setAttribute('x1', -9);
    line.setAttribute('x2', -9);
    now.innerHTML = last;
  });
}
