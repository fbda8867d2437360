// What all of these programs do alike: settings come as JSON in the first argument, what is to be known goes out as
// lines of JSON, and the program ends with its standard input, so that it never outlives the test that started it.
'use strict';

exports.settings = () => JSON.parse(process.argv[2] ?? '{}');

exports.announce = (facts) => process.stdout.write(`${JSON.stringify(facts)}\n`);

exports.endWithInput = () => {
  process.stdin.resume();
  process.stdin.on('end', () => process.exit(0));
};

exports.endWithInput();
