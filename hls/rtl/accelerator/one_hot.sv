// The word whose enable is high; zeros if none is. Never are two.
module edgemoe_one_hot #(
    parameter int WIDTH = 8,
    parameter int CHOICES = 2
) (
    input  logic [CHOICES-1:0] enable,
    input  logic [CHOICES*WIDTH-1:0] in,
    output logic [WIDTH-1:0] out
);

  always_comb begin
    out = '0;
    for (int choice = 0; choice < CHOICES; choice++) out |= in[choice*WIDTH+:WIDTH] & {WIDTH{enable[choice]}};
  end

endmodule
