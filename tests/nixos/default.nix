_: {
  checks = { };
  scenarios = { };
}
