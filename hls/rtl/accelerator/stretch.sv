// How many beats the rows of a job have in memory: a command for an AXI master.
//
// `start` takes the sizes; the command is offered three cycles later and stays until it is taken.
module edgemoe_stretch #(
    parameter int TOKEN_BITS = 16,
    parameter int WORD_BITS = 8,
    parameter int WORD_BEATS = 1
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic start,  // while no command is under way
    input  logic [TOKEN_BITS-1:0] rows,
    input  logic [WORD_BITS-1:0] words,  // of a row

    output logic command_valid,
    input  logic command_ready,
    output logic [31:0] command_beats
);

  logic [TOKEN_BITS-1:0] rows_1;
  logic [WORD_BITS-1:0] words_1;
  logic [TOKEN_BITS+WORD_BITS-1:0] product;
  logic counted;
  logic unused_line;

  edgemoe_valid_delay #(.CYCLES(2)) count_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(1'b1),
      .in(start),
      .out(counted),
      .any(unused_line)
  );

  always_ff @(posedge ap_clk) begin
    rows_1 <= rows;
    words_1 <= words;
    product <= (TOKEN_BITS + WORD_BITS)'(rows_1) * (TOKEN_BITS + WORD_BITS)'(words_1);
    if (counted) command_beats <= 32'(product) * 32'(WORD_BEATS);
  end

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) command_valid <= 1'b0;
    else if (counted) command_valid <= 1'b1;
    else if (command_ready) command_valid <= 1'b0;

`ifndef SYNTHESIS
  always_ff @(posedge ap_clk) if (ap_rst_n && (start || counted)) assert (!command_valid);
`endif

endmodule
